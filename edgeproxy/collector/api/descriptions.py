"""Texts of the OpenAPI description that have no field or endpoint to stand beside: tags, path parameters, examples.

The text of a field of the API is the docstring below it; `describe_fields` reads it from the source of the class, so
that importing the models costs nothing. Fields of the configuration have descriptions.
"""

import ast
import functools
import inspect
import sys
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from typing_extensions import get_original_bases

from edgeproxy.collector.accounts.models import CreateCustomerRequest, UpdateCustomerRequest
from edgeproxy.config.schema import LINK

PACKAGE = "edgeproxy."
SAME_FIELDS: Final[Mapping[type, type]] = MappingProxyType({UpdateCustomerRequest: CreateCustomerRequest})
"""Models that are made of another one's fields, and that model."""


class Tag(NamedTuple):
    """A domain of the API: its name, a sentence for readers, and how the paths of its endpoints begin or end."""

    name: str
    description: str
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


TAGS: Final = (
    Tag("keys", "API keys of customers: create, change, rotate, revoke, report leaks.", ("/v1/keys",), ("/keys",)),
    Tag("quotas", "Quotas, and the items that are allocated of them.", ("/v1/directory/quotas",), ("/quotas",)),
    Tag("allocations", "Items that services allocate of a quota.", ("/v1/customers/{customer}/holdings",)),
    Tag("customers", "Customers, their contacts and the address of their alerts.", ("/v1/customers",)),
    Tag(
        "usage",
        "Usage that the ledger has counted, and the requests that limits refused.",
        ("/v1/usage", "/v1/refusals"),
    ),
    Tag(
        "events", "Usage events that services report, and those that were rejected.", ("/v1/events", "/v1/dead-letters")
    ),
    Tag(
        "edges",
        "Edges, their batches of counts, and batches in quarantine.",
        ("/v1/batches", "/v1/edges", "/v1/quarantine"),
    ),
    Tag("directory", "The customer directory, as edges fetch it.", ("/v1/directory",)),
    Tag("tokens", "Tokens of operators, services, edges and customers for this API.", ("/v1/tokens",)),
    Tag("flags", "Feature flags and the customers that have them.", ("/v1/flags",)),
    Tag("regions", "The best region for a client.", ("/v1/regions",)),
    Tag("alerts", "Alerts, their delivery, and anomalies of usage.", ("/v1/alerts", "/v1/anomalies")),
    Tag("incidents", "Incidents, as the status page shows them.", ("/v1/incidents",)),
    Tag("audit", "The audit log: each change, who made it, before and after.", ("/v1/audit",)),
    Tag("invoices", "Invoices and credit notes. Amounts are cents.", ("/billing/invoices",)),
    Tag("webhooks", "Events of Stripe.", ("/billing/webhooks",)),
    Tag(
        "credits",
        "Prepaid credits. Amounts are millicredits: 1,000,000 are one US dollar.",
        (
            "/billing/balance",
            "/billing/statements",
            "/billing/purchases",
            "/billing/checkout",
            "/billing/credits",
            "/billing/refunds",
        ),
    ),
    Tag(
        "reports",
        "Roll-out of billing, reconciliation, the books and the business.",
        ("/billing/reconciliation", "/billing/rollout", "/billing/report", "/billing/accounting", "/billing/executive"),
    ),
    Tag("billing", "Plans, subscriptions, billed usage and the customer portal.", ("/billing",)),
    Tag(
        "service",
        "The collector itself: health, metrics and this description.",
        ("/healthz", "/readyz", "/metrics", "/v1/openapi"),
    ),
)
"""The tags. An endpoint has the first one that fits its path: narrower ones come first."""

PATH_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alert": "The number of the alert.",
        "customer": "The customer, by id or name, such as acme.",
        "date": "The day in UTC, such as 2027-01-31.",
        "edge": "The id of the edge.",
        "event": "The id of the event at Stripe, such as evt_1.",
        "flag": "The name of the flag.",
        "incident": "The id of the incident.",
        "invoice": "The id of the invoice.",
        "item": "The item, by the name that the service gives it.",
        "key": "The id of the key.",
        "letter": "The id of the dead letter.",
        "meter": "The name of the meter, such as requests.",
        "month": "The calendar month in UTC, such as 2027-03; with .csv or .pdf behind it, a file.",
        "place": "The number of the part, as the directory's lines name it.",
        "purchase": "The id of the purchase.",
        "seq": "The number of the batch.",
        "token": "The name of the token; in paths of the directory, the token of a version.",
    }
)

RESPONSE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ETag": "The version of what was returned, for If-Match.",
        "Idempotent-Replayed": "`true` where the answer is that of an earlier request with the same Idempotency-Key.",
        "Location": "The address of the document.",
    }
)

MOMENT: Final = "2027-01-01T12:00:00.000Z"
EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "at": MOMENT,
        "created_at": MOMENT,
        "currency": "usd",
        "customer": "acme",
        "ended_at": MOMENT,
        "expires_at": MOMENT,
        "meter": "requests",
        "month": "2027-03",
        "period_end": "2027-04-01T00:00:00.000Z",
        "period_start": "2027-03-01T00:00:00.000Z",
        "plan": "standard@3",
        "received": MOMENT,
        "sent_at": MOMENT,
        "tier": "standard",
        "unit_price": "0.002",
        "updated_at": MOMENT,
        "usd": "12.50",
    }
)
"""An example of each text of an answer whose form its type does not show, by the name of its field."""


def find_tag(path: str) -> str:
    """Return the name of the tag of a path; raises KeyError where none fits."""
    for tag in TAGS:
        if path.startswith(tag.prefixes) or path.endswith(tag.suffixes):
            return tag.name
    raise KeyError(path)


@functools.cache
def describe_fields(model: type) -> Mapping[str, str]:
    """Return the text of each field of a pydantic model or TypedDict, inherited fields included.

    It is the field's description, as the configuration's models have it, or the docstring below the field.
    """
    descriptions: dict[str, str] = {}
    if model in SAME_FIELDS:
        descriptions |= describe_fields(SAME_FIELDS[model])
    for base in reversed(get_original_bases(model)):
        if isinstance(base, type):
            descriptions |= describe_fields(base)
    if model.__module__.startswith(PACKAGE):
        descriptions |= _read_module(model.__module__).get(model.__name__, {})
    if issubclass(model, BaseModel):
        fields = model.model_fields.items()
        descriptions |= {name: LINK.sub(r"\1", field.description) for name, field in fields if field.description}
    return descriptions


@functools.cache
def _read_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """Return the docstrings below the fields of each class of a module, by class and field."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _read_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _read_class(node: ast.ClassDef) -> dict[str, str]:
    descriptions = {}
    for field, below in pairwise(node.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                descriptions[name] = " ".join(text.split())
    return descriptions


def add_texts(schema: dict[str, Any], model: type, aliases: Mapping[str, str], *, examples: bool) -> dict[str, Any]:
    """Add to the schema of a model the description of each field and, to texts, an example."""
    properties = schema.get("properties", {})
    for field, text in describe_fields(model).items():
        shape = properties.get(aliases.get(field, field))
        if shape is not None:
            shape.setdefault("description", text)
    if examples:
        for field, shape in properties.items():
            is_text = any(choice.get("type") == "string" for choice in (shape, *shape.get("anyOf", ())))
            if is_text and field in EXAMPLES:
                shape.setdefault("examples", [EXAMPLES[field]])
    return schema
