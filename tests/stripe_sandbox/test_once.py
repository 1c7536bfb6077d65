"""Under every fault at once, a client that asks again until it is sure has each effect once."""

import random
from http.client import HTTPException

from loadtest.testbed.http_client import Answer
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import Sandbox

KINDS = ("call_lost", "answer_lost", "answer_cut", "error_before", "error_after", "rate_limited")
CALLS = 25


class Client:
    """Repeats a request until it is answered: with its key while the outcome is unknown, with a new key after a 500."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.tries = 0

    def once(self, path: str, body: str, name: str) -> Answer | None:
        """The answer; None after a 500, when only a look tells whether it was done."""
        while True:
            self.tries += 1
            assert self.tries < 100 * CALLS
            try:
                answer = self.sandbox.call("POST", path, body, Idempotency_Key=name)
            except (OSError, HTTPException):
                until(self.sandbox.ready, "the sandbox is ready")
                continue
            if answer.status == 429 or (answer.status == 409 and b"in-progress request" in answer.body):
                continue
            return None if answer.status >= 500 else answer

    def look(self, path: str) -> Answer:
        """Return the object at a path."""
        while True:
            try:
                answer = self.sandbox.call("GET", path)
            except (OSError, HTTPException):
                until(self.sandbox.ready, "the sandbox is ready")
                continue
            if answer.status == 200:
                return answer


def test_each_request_takes_effect_once_despite_faults(stripe_sandbox: Sandbox, seed: int) -> None:
    sandbox, client = stripe_sandbox, Client(stripe_sandbox)
    customer = sandbox.call("POST", "/v1/customers", "payment_method=pm_card_visa").json()["id"]
    sandbox.call("POST", "/v1/billing/meters", "display_name=O&event_name=once&default_aggregation[formula]=sum")
    sandbox.faults(
        *({"kind": kind, "probability": 0.12} for kind in KINDS),
        {"kind": "restart_before", "probability": 0.04, "count": 1},
        {"kind": "restart_after", "probability": 0.04, "count": 1},
        seed=seed,
    )
    values = random.Random(seed).choices(range(1, 1000), k=CALLS)
    for n, value in enumerate(values):
        event = f"event_name=once&payload[stripe_customer_id]={customer}&payload[value]={value}&identifier=once-{n}"
        attempt = 0
        while (answer := client.once("/v1/billing/meter_events", event, f"e{n}-{attempt}")) is None:
            attempt += 1
        assert answer.status == 200 or "already exists" in answer.json()["error"]["message"]
    invoices = []
    for n in range(4):
        attempt = 0
        while True:
            body = f"customer={customer}&metadata[edgeproxy_invoice]=once-{n}"
            client.once("/v1/invoices", body, f"i{n}-{attempt}")
            listed = client.look(f"/v1/invoices?customer={customer}&limit=100").json()["data"]
            made = [one["id"] for one in listed if one["metadata"].get("edgeproxy_invoice") == f"once-{n}"]
            if made:
                break
            attempt += 1
        assert len(made) == 1
        invoices += made
    sandbox.faults()
    entries = sandbox.journal("billing.meter_event.accepted")
    taken = {entry["id"]: int(entry["payload"]["value"]) for entry in entries if entry["id"].startswith("once-")}
    assert taken == {f"once-{n}": value for n, value in enumerate(values)}
    assert len([entry for entry in entries if entry["id"].startswith("once-")]) == CALLS
    made = [one["id"] for one in sandbox.journal("invoice.created") if one["customer"] == customer]
    assert sorted(made) == sorted(invoices)
