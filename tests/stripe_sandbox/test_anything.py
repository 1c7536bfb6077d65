"""Every operation answers any parameters that its description allows as described, and never fails."""

import random
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from loadtest.testbed.waiting import until
from stripe_sandbox.description import Operation, Schema, load_description
from tests.support.stripe_sandbox import Sandbox

TIMES = 3
"""The number of calls of each operation."""
WORDS = ("usd", "a@example.com", "https://example.com", "pm_card_visa", "x", "0.5", "2027")


class Sender:
    """Generates calls with ids of existing objects and others."""

    def __init__(self, sandbox: Sandbox, random: random.Random) -> None:
        self.sandbox = sandbox
        self.random = random
        self.known: list[str] = []

    def learn(self, answer: Any) -> None:
        """Remember the ids in an answer."""
        for one in answer["data"] if isinstance(answer.get("data"), list) else (answer,):
            if isinstance(one.get("id"), str) and not one.get("deleted"):
                self.known.append(one["id"])

    def id_for(self, name: str) -> str:
        """Return an id that fits the parameter."""
        expected = PREFIXES.get(name)
        fitting = [id for id in self.known if expected is None or id.startswith(expected)]
        return self.random.choice(fitting) if fitting and self.random.random() < 0.9 else "none"

    def value(self, name: str, schema: Schema) -> Any:
        """Return a value that the description allows."""
        if schema.get("x-pruned"):
            return None
        if "anyOf" in schema:
            return self.value(name, self.random.choice(schema["anyOf"]))
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        match schema.get("type"):
            case "object":
                return self.object(schema) or ({"k": "v"} if "additionalProperties" in schema else {})
            case "array":
                return [self.value(name, schema.get("items", {})) for _ in range(self.random.randint(1, 2))]
            case "integer":
                now = int(self.sandbox.control("clock")["now"])
                return self.random.choice((0, 1, 7, 60, 2_000, now // 60 * 60, now + 3600, 10**14, -5))
            case "number":
                return self.random.choice((0, 1, 19.5, 100))
            case "boolean":
                return self.random.random() < 0.5
        if name in PREFIXES:
            return self.id_for(name)
        return self.random.choice(("0.5", "12", "-3.25") if schema.get("format") == "decimal" else WORDS)

    def object(self, schema: Schema) -> dict[str, Any]:
        """Return values for the required parameters, and for some optional ones."""
        made = {}
        for name, inner in schema.get("properties", {}).items():
            if name == "expand":
                continue
            if name in schema.get("required", ()) or self.random.random() < (0.6 if name in PREFIXES else 0.15):
                value = self.value(name, inner)
                if value is not None:
                    made[name] = value
        return made

    def send(self, operation: Operation) -> None:
        """Make a call and check its answer against the description. It must not be a server error."""
        resource = operation.path.split("/{")[0].rpartition("/")[2]
        path = operation.path.replace("{customer_id}", self.id_for("customer"))
        path = path.replace("{invoice_id}", self.id_for("invoice")).replace("{id}", self.id_for(resource))
        said = self.object(operation.parameters)
        written = urlencode(list(pairs(said)))
        if operation.method == "POST" and path.startswith("/v2/"):
            written = orjson.dumps(said).decode()
        if operation.method == "POST":
            answer = self.sandbox.call("POST", path, written)
        else:
            answer = self.sandbox.call(operation.method, f"{path}?{written}")
        assert answer.status < 500, (operation.id, path, said, answer)
        if answer.status == 200:
            self.learn(answer.json())


PREFIXES = {
    "customer": "cus_",
    "customers": "cus_",
    "invoice": "in_",
    "invoices": "in_",
    "invoiceitems": "ii_",
    "invoice_item": "ii_",
    "invoice_payments": "inpay_",
    "product": "prod_",
    "products": "prod_",
    "price": "price_",
    "prices": "price_",
    "meter": "mtr_",
    "meters": "mtr_",
    "alerts": "alrt_",
    "credit_grants": "credgr_",
    "credit_grant": "credgr_",
    "credit_balance_transactions": "cbtxn_",
    "subscription": "sub_",
    "subscriptions": "sub_",
    "subscription_items": "si_",
    "subscription_schedules": "sub_sched_",
    "from_subscription": "sub_",
    "sessions": "cs_",
    "credit_notes": "cn_",
    "refunds": "re_",
    "charge": "ch_",
    "charges": "ch_",
    "payment_intent": "pi_",
    "payment_intents": "pi_",
    "balance_transactions": "txn_",
    "coupons": "",
    "tax_ids": "txi_",
    "tax_rates": "txr_",
    "test_clocks": "clock_",
    "test_clock": "clock_",
    "webhook_endpoints": "we_",
    "event_destinations": "ed_",
    "events": "evt_",
    "invoice_line_item": "il_",
    "starting_after": "",
    "id": "",
}
"""The prefixes of ids, by the name of their parameter or path segment."""


def pairs(said: Any, name: str = "") -> Any:
    """Yield the fields of a form."""
    if isinstance(said, dict):
        for key, value in said.items():
            yield from pairs(value, f"{name}[{key}]" if name else key)
    elif isinstance(said, list):
        for place, value in enumerate(said):
            yield from pairs(value, f"{name}[{place}]")
    else:
        yield name, str(said).lower() if isinstance(said, bool) else str(said)


def came_due(sandbox: Sandbox) -> bool:
    """Return whether drafts of invoices are past their time of finalization."""
    now = sandbox.control("clock")["now"]
    drafts = sandbox.call("GET", "/v1/invoices?status=draft&limit=100").json()["data"]
    return any((draft["automatically_finalizes_at"] or now) < now and not draft["test_clock"] for draft in drafts)


def test_no_described_call_breaks_the_sandbox(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> None:
    sandbox = Sandbox(tmp_path / "stripe")  # A separate sandbox, because its clock moves.
    request.addfinalizer(sandbox.close)
    sandbox.start()
    sender = Sender(sandbox, random.Random(seed))
    calls = [operation for operation in load_description().operations for _ in range(TIMES)]
    sender.random.shuffle(calls)
    # Objects that other calls need are created first.
    for name in ("Customers_create", "Products_create", "BillingMeters_create", "Prices_create", "Invoices_create"):
        (first,) = [operation for operation in load_description().operations if operation.id == name]
        for _ in range(20):
            sender.send(first)
    for operation in calls:
        sender.send(operation)
    sandbox.advance(2 * 3600)
    until(lambda: not came_due(sandbox), "all is done that came due")
    assert '"exception"' not in sandbox.output, "nothing failed that came due"
