"""The example of each operation is sent to a collector. Its answer has exactly the fields of the description."""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema_rs
import pytest

from edgeproxy.collector.api.endpoint import Endpoint
from edgeproxy.collector.api.groups import GROUPS
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, SERVICE, Collector, sha256
from loadtest.testbed.http_client import Answer

BEACON = "beacon-token"
KEY = base64.b64encode(b"k" * 32).decode()
METERS = {"requests": {"count": "requests"}, "places": {"count": "holdings"}}
QUERIES = {
    "delete_dead_letters_letter": "why=test",
    "get_customers_customer_move": "residency=us",
    "get_billing_invoices_closing": "period=2027-03",
}
"""The query parameters that some operations require."""
REFUSED = {
    # Without Stripe there are no invoices, purchases and events of its own.
    **dict.fromkeys(("get_billing_invoices_invoice", "get_billing_invoices_invoice_pdf"), 404),
    "get_billing_invoices_invoice_lines_line": 404,
    **{f"post_billing_invoices_invoice_{what}": 404 for what in ("hold", "accept", "void", "credit")},
    **{f"post_billing_invoices_invoice_{what}": 404 for what in ("settle", "write_off")},
    "get_billing_purchases_purchase_receipt": 404,
    **dict.fromkeys(("post_billing_portal", "post_billing_checkout", "post_billing_refunds"), 409),
    "put_billing_credits_top_up": 409,
    "patch_billing_details": 409,
    "post_billing_webhooks_stripe": 404,
    "post_billing_webhooks_event_replay": 409,
    # No directory is published, no alert was given up, and no quarantined batch is readable.
    "get_directory": 404,
    "get_directory_followers": 404,
    "get_directory_parts_token_place": 404,
    "post_alerts_alert_replay": 409,
    "post_alerts_alert_mute": 422,  # The time is more than 90 days away.
    "post_quarantine_edge_seq_replay": 422,
    # The request is still being processed.
    "post_customers_customer_webhook_endpoints_endpoint_messages_message_redeliver": 409,
    "post_batches": 422,  # A batch has header fields, and tests/collector/ledger sends them.
    "post_traffic": 422,  # A report has them too, and tests/collector/api/test_traffic_api.py sends it.
    "post_limit_usage": 422,  # A report, as above.
    # A move needs `residency`: tests/collector/residency has two collectors with it.
    **dict.fromkeys(("get_customers_customer_move", "post_customers_customer_move"), 409),
    **dict.fromkeys(("get_customers_customer_move_document", "post_customers_customer_move_steps"), 409),
    **dict.fromkeys(("put_arrivals_move", "delete_arrivals_move", "post_arrivals_move_transfers"), 409),
    **dict.fromkeys(("get_residencies", "get_residency_aggregates"), 409),
    "put_billing_subscription_coupon": 422,  # The subscription of POST /billing/subscription continues.
    "post_billing_upgrade": 409,  # The example of PUT /billing/subscription has upgraded already.
}
"""The operations that a collector without Stripe refuses, each with its status."""

COMPUTED = {"get_billing_executive": 429, "get_refusals": 429}
"""The operations whose answer may still be computed, each with its status until then."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with plans, credits, regions and a token for each role."""
    folder = tmp_path_factory.mktemp("whole")
    regions = {"names": ["eu-west", "us-east"], "default": "eu-west"}
    collector = Collector(folder, f"sqlite:///{folder}/ledger.db", meters=METERS, regions=regions)
    collector.settings["webhooks"] = {"encryption": KEY, "networks": ["127.0.0.0/8"]}
    collector.settings["tokens"].append({"name": "beacon", "sha256": sha256(BEACON), "role": "beacon"})
    with closing(collector):
        yield collector.start()


@pytest.fixture(scope="module")
def names(whole: Collector) -> dict[str, str]:
    """Create the objects that paths name. Return their names by path parameter."""
    yesterday = datetime.now(UTC) - timedelta(days=1)

    def create(path: str, body: object, token: str = ADMIN, status: int = 201) -> dict[str, Any]:
        answer = whole.send("POST", path, body, token=token)
        assert answer.status == status, answer
        created: dict[str, Any] = answer.json()
        return created

    customer = create("/v1/customers", {"name": "example", "tier": "basic"})["name"]
    for id_ in "xy":
        event = {"id": id_, "source": "s", "customer": customer, "meter": "none", "value": 1}
        create("/v1/events", event, SERVICE, 202)
    letters = whole.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]
    batch = Chain("broken").next()
    unreadable = {"Edge-Id": batch.edge, "Edge-Seq": "1", "Edge-Hash": "0" * 64}
    assert whole.post(b"{", fields=unreadable).status == 422
    assert whole.send("PUT", "/v1/flags/beta", {"percent": 1}).status == 200
    leaked = hashlib.sha256(b"key_v1_found_in_a_log").hexdigest()
    create(f"/v1/customers/{customer}/keys", {"sha256": leaked})
    plans = {"plans": "plans: {enterprise@2: {fee: '599'}}", "at": "2099-02-01", "why": "dearer"}
    hooks = f"/v1/customers/{customer}/webhook-endpoints"
    endpoint = create(hooks, {"url": "http://127.0.0.1:1/"})["id"]
    hours = {"begins_at": "2099-03-01T02:00:00Z", "ends_at": "2099-03-01T04:00:00Z"}
    plan = {"title": "t", "message": "m"} | hours
    update = {"severity": "P3", "title": "t", "message": "m"}
    return {
        "customer": customer,
        "key": create(f"/v1/customers/{customer}/keys", {})["id"],
        "endpoint": endpoint,
        "message": create(f"{hooks}/{endpoint}/test", None, status=202)["id"],
        "flag": "beta",
        "token": create("/v1/tokens", {"name": "example", "customer": customer})["name"],
        "incident": create("/v1/incidents", update)["id"],
        "maintenance": create("/v1/maintenance", plan)["id"],
        "request": create("/v1/privacy/requests", {"kind": "access", "person": "Ada", "note": "By mail."})["id"],
        "change": create("/billing/price-changes", plans)["id"],
        "letter": letters[0]["id"],
        "discarded letter": letters[1]["id"],
        "edge": batch.edge,
        "seq": "1",
        "alert": str(whole.get("/v1/alerts", token=ADMIN).json()["alerts"][0]["id"]),
        "item": "seat-1",
        "meter": "places",
        "month": f"{yesterday:%Y-%m}",
        "date": f"{yesterday:%Y-%m-%d}",
        "invoice": "none",
        "line": "0",
        "purchase": "none",
        "event": "evt_none",
        "place": "0",
        "tag": "keys",
        "move": "019f2d2e-0c44-7d10-9e21-7b6a5c4d3e2f",
    }


def close(node: Any) -> Any:
    """Return a schema that forbids undescribed fields in its objects."""
    if isinstance(node, list):
        return [close(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {name: close(value) for name, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed


FORMS = {
    "time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z"),
    "day": re.compile(r"\d{4}-\d\d-\d\d"),
    "month": re.compile(r"\d{4}-\d\d"),
    "UUID": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "SHA-256": re.compile(r"[0-9a-f]{64}"),
    # A random hexadecimal id has only digits once in two thousand times.
    "the start of a SHA-256": re.compile(r"[0-9a-f]{16}"),
    "decimal number": re.compile(r"-?\d+(\.\d+)?"),
}
"""The forms of texts. An example must have the form of the answer's text."""


def name_form(value: object) -> str | None:
    """Return the name of the form of a text, or None."""
    return next((name for name, form in FORMS.items() if isinstance(value, str) and form.fullmatch(value)), None)


def compare_forms(example: Any, answer: Any, path: str = "") -> Iterator[str]:
    """Yield the texts of an example whose form differs from that in the answer.

    Fields that the answer lacks are skipped.
    """
    if isinstance(example, dict) and isinstance(answer, dict):
        for field in example.keys() & answer.keys():
            yield from compare_forms(example[field], answer[field], f"{path}.{field}")
    elif isinstance(example, list) and isinstance(answer, list):
        for index, (left, right) in enumerate(zip(example, answer, strict=False)):
            yield from compare_forms(left, right, f"{path}[{index}]")
    elif isinstance(example, str) and isinstance(answer, str) and name_form(example) != name_form(answer):
        yield f"{path}: the example {example!r} has another form than {answer!r}"


def send(collector: Collector, endpoint: Endpoint, names: dict[str, str]) -> Answer:
    """Send the example of an operation with a token of a permitted role."""
    roles = frozenset({"admin"}) if endpoint.is_public else endpoint.roles
    tokens = {"admin": ADMIN, "edge": EDGE, "service": SERVICE, "beacon": BEACON}
    token = next(token for role, token in tokens.items() if role in roles)
    if endpoint.path.startswith("/billing/usage/"):
        names = names | {"meter": "llm_tokens"}
    query = QUERIES.get(endpoint.operation_id, "")
    if endpoint.method == "DELETE":
        names = names | {"letter": names["discarded letter"]}
    if "customer" in endpoint.query.model_fields and endpoint.path.startswith("/billing/"):
        query = f"customer={names['customer']}"
    if endpoint.path == "/billing/upgrade":
        query += "&tier=enterprise"
    if endpoint.path == "/v1/usage/value":
        query = f"customer={names['customer']}&meter=llm_tokens"
    path = endpoint.path.format(**names) + (f"?{query}" if query else "")
    return collector.send(endpoint.method, path, endpoint.example, token=token)


def find_turn(endpoint: Endpoint) -> int:
    """Return the sort key of an operation: creation first, then use, then removal."""
    if endpoint.operation_id == "post_billing_subscription":
        return 0
    is_end = endpoint.method == "DELETE" or endpoint.path == "/billing/subscription/cancel"
    return 3 if endpoint.path.endswith("/restore") else 2 if is_end else 1


def test_the_example_of_each_operation_is_answered_as_it_is_described(whole: Collector, names: dict[str, str]) -> None:
    described = whole.get("/v1/openapi.json", token=None).json()
    schemas = {"components": close(described["components"])}
    wrong = []
    endpoints = [endpoint for group in GROUPS for endpoint in group.endpoints]
    for endpoint in sorted(endpoints, key=find_turn):
        operation, id_ = described["paths"][endpoint.path][endpoint.method.lower()], endpoint.operation_id
        answer = send(whole, endpoint, names)
        if answer.status not in (
            REFUSED.get(id_, endpoint.status),
            200 if endpoint.may_be_200 else 0,
            COMPUTED.get(id_),
        ):
            wrong.append(f"{id_}: {answer.status} {answer.body[:200]!r}")
            continue
        content = operation["responses"][str(answer.status)].get("content", {})
        kind = dict(answer.fields).get("content-type", "").partition(";")[0]
        media = content.get(kind, {})
        if "json" in kind and media:
            schema = {**close(media["schema"]), **schemas}
            faults = jsonschema_rs.Draft202012Validator(schema).iter_errors(answer.json())
            wrong += [f"{id_}: {list(fault.instance_path)} {fault.message[:200]}" for fault in faults]
            if answer.status < 300:
                wrong += [f"{id_}: {fault}" for fault in compare_forms(media["example"], answer.json())]
    assert not wrong, "\n".join(wrong)
