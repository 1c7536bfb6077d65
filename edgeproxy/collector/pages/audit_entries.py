"""Entries of the audit log for display: the object of an entry, and its changes. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import orjson

from edgeproxy.collector.pages.api import JsonDocument

CHANGES_MAX = 3
"""Changed fields shown in a row. The others are folded."""
VALUE_CHARACTERS_MAX = 60
UNSHOWN = frozenset(("id", "created_at", "usage_key", "hash", "session"))
"""Fields that add nothing to a change beside its object."""
ID = re.compile(r"(?:[a-z]+_)?[0-9a-f]{8}-?[0-9a-f-]{20,}")
TIME = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}Z")
PAGES: Mapping[str, str] = {
    **dict.fromkeys(
        ("customer", "subscription", "limits", "webhook", "credits", "billing.details", "billing.portal"),
        "/console/customers/{}",
    ),
    "key": "/console/customers/{}#keys",
    **dict.fromkeys(("incident", "maintenance"), "/console/incidents#{}"),
    "invoice": "/console/invoices/{}",
    "price_change": "/console/price-changes/{}",
    "billing": "/console/rollout",
    "alert": "/console/alerts",
    "edge": "/console/edges/{}",
    "quarantine": "/console/edges/{}",
    "token": "/console/tokens",
}
"""The page of an object, by action or by its first word. The placeholder is the target up to its first slash."""


CUSTOMERS = "/console/customers/"
NO_NAMES: Mapping[str, str] = {}


class AuditObject(NamedTuple):
    """The object of an entry."""

    name: str
    """The name or title for people, or else the beginning of the id."""
    href: str
    """Its page; empty if it has none."""
    owner: str = ""
    """The customer that owns it, unless the name is the customer's own."""


class Changed(NamedTuple):
    """A field that an entry changed."""

    field: str
    before: str
    """The value before; empty if there was none."""
    after: str


def find_page(action: str) -> str:
    """Return the page of an action's object, with a placeholder; empty if it has none."""
    return PAGES.get(action, PAGES.get(action.partition(".")[0], ""))


def find_owners(entries: Sequence[JsonDocument]) -> set[str]:
    """Return the customers that entries are about, by their names in the ledger."""
    return {
        str(entry["target"]).partition("/")[0]
        for entry in entries
        if find_page(str(entry["action"])).startswith(CUSTOMERS)
    } - {""}


def describe_object(
    entry: JsonDocument, names: Mapping[str, str], customers: Mapping[str, str] = NO_NAMES
) -> AuditObject:
    """Return the object of an entry. `names` maps ids to names that the entry lacks, `customers` to shown names."""
    action, target = str(entry["action"]), str(entry["target"])
    group = action.partition(".")[0]
    first, _, rest = target.partition("/")
    page = find_page(action)
    if page.startswith(CUSTOMERS):
        names = {**customers, **names}  # By id, and by name in the ledger.
    details = {**(entry["before"] or {}), **(entry["after"] or {})}
    own = next((str(details[field]) for field in ("title", "name", "start", "host") if details.get(field)), "")
    href = page.format(quote(first, safe="")) if target else ""
    if group in ("quarantine", "edge"):
        return AuditObject(first, href)
    if rest and group != "denied":
        return AuditObject(names.get(rest) or own or shorten_id(rest), href, names.get(first, first))
    if group == "price_change" and details.get("moves"):
        return AuditObject(", ".join(map(str, details["moves"])), href)
    name = names.get(target) or (own if ID.fullmatch(target) else "") or shorten_id(target)
    name = f"#{name}" if group == "alert" else name
    return AuditObject("" if target == entry["actor"] else name, href)


def shorten_id(target: str) -> str:
    """Return the beginning of an id. Other targets are returned unchanged."""
    return f"{target[:8]}…" if ID.fullmatch(target) else target


def list_changes(entry: JsonDocument, about: AuditObject) -> list[Changed]:
    """Return the changed fields of an entry, without fields that only name its object."""
    before, after = flatten(entry["before"]), flatten(entry["after"])
    known = {*str(entry["target"]).split("/"), about.name, about.owner}
    return [
        Changed(field, before.get(field, ""), after.get(field, ""))
        for field in {**before, **after}
        if before.get(field, "") != after.get(field, "")
        and field not in UNSHOWN
        and (field in before or after[field] not in known)
    ]


def is_time(text: str) -> bool:
    """Return True if a value is a time in the API's format (RFC 3339)."""
    return TIME.fullmatch(text) is not None


def flatten(values: object, path: str = "") -> dict[str, str]:
    """Return the values of an object as short texts, nested values by path. Null is left out."""
    if isinstance(values, Mapping):
        rows: dict[str, str] = {}
        for name, value in values.items():
            rows |= flatten(value, f"{path}.{name}" if path else str(name))
        return rows
    if values is None:
        return {}
    if isinstance(values, list):
        is_flat = not any(isinstance(value, Mapping | list) for value in values)
        text = ", ".join(map(str, values)) if is_flat else orjson.dumps(values).decode()
    else:
        text = str(values).lower() if isinstance(values, bool) else str(values)
    return {path: text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"}
