"""Stripe webhooks from the sandbox, the kill switch and the rollout, in a running collector."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson
import pytest
import stripe

from edgeproxy.collector.billing.stripe.webhook_event import BYTES_MAX
from loadtest.testbed.collector import READ, Collector, checked
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import KEY, Sandbox

PATH = "/billing/webhooks/stripe"
OTHER = "whsec_another"
PROXY = "127.0.0.7"
"""The address of a trusted proxy."""


class World:
    """A sandbox that sends its webhooks to a collector."""

    def __init__(self, sandbox: Sandbox, collector: Collector, secret: str) -> None:
        self.sandbox = sandbox
        self.collector = collector
        self.secret = secret

    def events(self, **query: str) -> dict[str, Any]:
        answer = self.collector.get("/billing/webhooks", token="admin-token", **query)
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.json()
        return body

    def post(self, body: bytes, secret: str | None = None, at: float | None = None) -> Answer:
        """Send a body with a signature like Stripe's."""
        header = stripe.WebhookSignature.generate_signature_header(
            body.decode(), self.secret if secret is None else secret, timestamp=int(at or time.time())
        )
        return ask(self.collector.port, PATH, method="POST", fields={"Stripe-Signature": header}, body=body)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("delivery")
    key, secrets = folder / "key", folder / "secrets"
    key.write_text(KEY)
    with closing(Sandbox(folder / "sandbox")) as sandbox:
        sandbox.start()
        billing = {
            "plans": str(ROOT / "loadtest/testbed/plans.yaml"),
            "mode": "live",
            "credits": {},
            "tax": {"business_id_required": True},
            "stripe": {"base": sandbox.url, "key": str(key), "webhook_secrets": str(secrets)},
        }
        with closing(
            Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", billing=billing, trusted_proxies=[PROXY])
        ) as collector:
            secret = sandbox.listen(f"http://127.0.0.1:{collector.port}{PATH}")
            secrets.write_text(f"{OTHER}\n{secret}\n")
            yield World(sandbox, collector.start(), secret)


def test_events_are_stored_once_and_applied_without_exposing_payloads(world: World) -> None:
    world.sandbox.faults({"kind": "webhook_duplicated"}, {"kind": "webhook_shuffled"})

    async def sell(client: stripe.StripeClient) -> str:
        customer = await client.v1.customers.create_async({"name": "Jane Roe of Acme"})
        invoice = await client.v1.invoices.create_async({"customer": customer.id, "auto_advance": False})
        await client.v1.invoice_items.create_async(
            {"customer": customer.id, "invoice": invoice.id, "amount": 500, "currency": "usd"}
        )
        await client.v1.invoices.finalize_invoice_async(invoice.id)
        return invoice.id

    number = world.sandbox.run(sell)

    database = world.collector.database

    def states() -> set[str]:
        """Return the states of the invoice's events from the database, because the API limits the request rate."""
        with closing(sqlite3.connect(database)) as opened:
            rows = opened.execute("SELECT state FROM webhook_events WHERE object = ?", [number]).fetchall()
        return {row[0] for row in rows} if len(rows) >= 2 else set()

    until(lambda: states() == {"applied"}, "the invoice is applied")
    ids = [event["id"] for event in world.events()["events"] if event["object"] == number]
    assert len(ids) == len(set(ids)) >= 2
    world.sandbox.faults()
    stored = b"".join(file.read_bytes() for file in database.parent.glob(f"{database.name}*"))
    assert b"Jane Roe" not in stored
    assert b"Jane Roe" not in world.collector.output.encode()
    assert KEY not in world.collector.output
    # Replay stored events by hand, and an unknown one.
    assert world.collector.send("POST", f"/billing/webhooks/{ids[0]}/replay").status == 202
    until(lambda: states() == {"applied"}, "the event is applied once more")
    assert world.collector.send("POST", "/billing/webhooks/evt_nobody/replay").status == 404


def test_event_without_stripes_signature_is_refused_and_not_stored(world: World) -> None:
    before = world.events()["states"]
    body = b'{"id":"evt_forged","object":"event","type":"invoice.paid","created":1,"livemode":false,'
    body += b'"data":{"object":{"object":"invoice","id":"in_forged"}}}'
    assert world.post(body, "whsec_guess").status == 400
    assert world.post(body, at=time.time() - 400).status == 400
    assert world.post(body, at=time.time() + 400).status == 400
    assert world.post(b"[]").status == 400
    assert world.post(b"x" * (BYTES_MAX + 1)).status == 413
    assert ask(world.collector.port, PATH, method="POST", body=body).status == 400
    garbage = {"Stripe-Signature": f"t={int(time.time())},v1=\xff"}  # A byte that is not UTF-8.
    assert ask(world.collector.port, PATH, method="POST", fields=garbage, body=body).status == 400
    assert world.events()["states"] == before
    assert world.collector.metric("billing_webhooks_refused_total") >= 5
    # Any current secret is accepted. An event of the other mode is stored but not applied.
    live = body.replace(b"false", b"true").replace(b"forged", b"live")
    assert world.post(live, OTHER).status == 200
    assert [event["id"] for event in world.events(state="other_mode")["events"]] == ["evt_live"]


def test_forged_payment_event_adds_no_credits(world: World) -> None:
    """A validly signed event reports an unpaid purchase as paid."""
    collector = world.collector
    assert collector.send("POST", "/v1/customers", {"name": "thief", "tier": "basic"}).status == 201
    buy = {"millicredits": 20_000_000, "success_url": "https://shop.example/paid"}
    session = collector.send("POST", "/billing/checkout?customer=thief", buy).json()["id"]
    paid = {"object": "checkout.session", "id": session, "status": "complete", "payment_status": "paid"}
    event = {"id": "evt_signed", "object": "event", "type": "checkout.session.completed", "created": int(time.time())}
    body = orjson.dumps(event | {"livemode": False, "data": {"object": paid}})
    assert world.post(body).status == 200

    def state() -> str:
        ((state,),) = collector.execute("SELECT state FROM webhook_events WHERE id = 'evt_signed'")
        return str(state)

    until(lambda: state() == "applied", "the purchase is looked up at Stripe")
    balance = collector.get("/billing/balance", token="admin-token", customer="thief").json()
    assert balance["balance"] == 0


def test_forged_events_break_no_event_list_and_raise_no_alert(world: World) -> None:
    """Validly signed events have a time outside the range of lists, or credit notes unknown to Stripe."""
    event = {"object": "event", "type": "credit_note.voided", "livemode": False, "created": int(time.time())}

    def forge(number: int, **changed: object) -> bytes:
        about = {"object": "credit_note", "id": f"cn_nowhere{number}"}
        return orjson.dumps(event | {"id": f"evt_note{number}", "data": {"object": about}} | changed)

    for created in (1 << 39, "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+00:00"):
        assert world.post(forge(0, created=created)).status == 400
    for number in range(3):
        assert world.post(forge(number)).status == 200

    def states() -> list[str]:
        rows = world.collector.execute("SELECT state, attempts FROM webhook_events WHERE object LIKE 'cn_nowhere%'")
        return [f"{state} {attempts}" for state, attempts in rows]

    until(lambda: all(state.startswith("applied") for state in states()), "the events are looked up at Stripe")
    assert (
        len(states())
        == len([event for event in world.events()["events"] if event["object"].startswith("cn_nowhere")])
        == 3
    )


def test_address_limit_uses_64_bits_and_trusted_proxies(world: World) -> None:
    def asked(source: str, *clients: str) -> list[int]:
        """Return the statuses of previews with an empty body. An address may send ten a minute."""
        found = []
        for client in clients:
            fields = {"X-Forwarded-For": client, "Authorization": "Bearer admin-token"}
            path = "/billing/subscription/preview?customer=acme"
            answer = ask(world.collector.port, path, method="POST", fields=fields, body=b"{}", source=source)
            found.append(answer.status)
        return found

    assert asked(PROXY, *(f"192.0.2.{number}" for number in range(12))) == [422] * 12
    assert asked(PROXY, *(f"2001:db8::{number:x}:1" for number in range(12))) == [422] * 10 + [429] * 2
    assert asked(PROXY, "2001:db8:0:1::1") == [422], "its neighbour is not held"
    assert asked(PROXY, "192.0.2.99, 198.51.100.1", "198.51.100.1", "garbage") == [422] * 3
    # X-Forwarded-For of an untrusted peer is ignored.
    assert asked("127.0.0.42", *(f"192.0.2.{number}" for number in range(12))) == [422] * 10 + [429] * 2
    assert world.collector.send("POST", "/v1/customers", {"name": "from-afar", "tier": "basic"}).status == 201
    fields = {"X-Forwarded-For": "192.0.2.7", "Authorization": "Bearer admin-token"}
    path = "/v1/customers/from-afar"
    body = b'{"metadata": {"a": "b"}}'
    assert ask(world.collector.port, path, method="PATCH", fields=fields, body=body, source=PROXY).status == 200
    entry = world.collector.get("/v1/audit", token="admin-token", target="from-afar", order="newest").json()["entries"]
    assert entry[0]["origin"] == "192.0.2.7"


def test_revenue_metrics_are_served_only_on_this_host(world: World) -> None:
    def told(**fields: str) -> bytes:
        return ask(world.collector.port, "/metrics", fields=fields).body

    until(lambda: b"\nbilling_liability_usd " in told(), "the liability metric is known")
    browser = {"Origin": "https://shop.example"}
    for fields in (
        {"X-Forwarded-For": "192.0.2.1"},
        {"X-Real-IP": "192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-For": "::1"},
        {"Forwarded": 'for="[2001:db8::1]"'},
        {"Host": "shop.example"},
        {"Host": "[2001:db8::5]:9100"},
        browser,
    ):
        other = told(**fields)
        assert not re.search(rb"_usd|billing_(revenue|cogs|margin|refunds)", other), fields
        assert b"\nbilling_webhook_events{" in other


def test_billing_administration_requires_its_role(world: World) -> None:
    for path in ("/billing/webhooks", "/billing/reconciliation", "/billing/rollout"):
        assert world.collector.get(path).status == 403
        assert world.collector.get(path, token=None).status == 401
    change = {"charging": False, "why": "a try"}
    assert world.collector.send("PUT", "/billing/rollout", change, token="read-token").status == 403
    assert world.collector.send("PUT", "/billing/rollout", {"percent": 5}).status == 422


def test_kill_switch_takes_effect_within_five_seconds(world: World) -> None:
    collector = world.collector
    status = collector.get("/billing/status", token=None)
    assert status.json()["charging"] is True
    assert "x-billing" not in status
    said = {"charging": False, "message": "Free today.", "why": "a wrong price"}
    began = time.monotonic()
    stopped = collector.send("PUT", "/billing/rollout", said)
    assert (stopped.status, stopped.json()["stopped_by"]) == (200, "admin")
    until(lambda: "x-billing" in collector.get("/billing/plans", token=None), "the message is told", seconds=5)
    assert time.monotonic() - began < 5
    assert collector.get("/billing/status", token=None).json()["message"] == "Free today."
    assert collector.metric("billing_charging") == 0
    bought = {"millicredits": 20_000_000, "success_url": "https://shop.example/paid"}
    asked: list[tuple[str, dict[str, Any]]] = [("checkout", bought), ("subscription", {"plan": "standard"})]
    for path, body in asked:
        answer = collector.send("POST", f"/billing/{path}?customer=acme", body)
        detail = "Free today. Plans and credits can be bought again once billing goes on."
        assert (answer.status, answer.json()["detail"]) == (503, detail), "buying is refused while charging is stopped"
        assert answer.json()["params"] == {"message": "Free today."}
    shown = collector.get("/billing/rollout", token="admin-token").json()
    assert (shown["charging"], shown["is_stopped_by_file"], shown["gates"]) == (False, False, [])
    assert (shown["percent"], shown["file_percent"]) == (100, 100)
    (waiver,) = shown["waivers"]
    assert (waiver["who"], waiver["why"], waiver["until"]) == ("admin", "a wrong price", None)
    assert collector.send("PUT", "/billing/rollout", said).status == 409
    assert collector.send("PUT", "/billing/rollout", {"charging": True, "why": "mended"}).status == 200
    assert collector.get("/billing/status", token=None).json()["charging"] is True
    assert collector.send("PUT", "/billing/rollout", {"percent": 5, "why": "down from 100"}).json()["percent"] == 5
    answer = collector.send("PUT", "/billing/rollout", {"percent": 25, "why": "up"})
    assert answer.status == 409
    assert "purchases that succeed: 0 of 0, too few to say" in answer.json()["detail"]

    def with_gates() -> dict[str, Any] | None:
        body = collector.get("/billing/rollout", token="admin-token").json()
        return body if body.get("gates") else None  # Too much asking is refused for a minute.

    shown = until(with_gates, "the gates are worked out", seconds=90.0)
    assert (shown["stage"], shown["waivers"][0]["until"] is None) == ("few", False)
    assert {"name": "purchases that succeed", "figure": "0 of 0, too few to say", "is_open": False}.items() <= next(
        gate.items() for gate in shown["gates"] if gate["name"].startswith("purchases")
    )
    forced = collector.send("PUT", "/billing/rollout", {"percent": 25, "why": "up", "force": "a drill"})
    assert forced.json()["percent"] == 25
    entries = collector.get("/v1/audit", token="admin-token", action="billing.rollout").json()["entries"]
    assert "forced past" in entries[-1]["after"]["why"]


CREATED = ("customers", "checkout/sessions")


def test_stored_stripe_failure_does_not_block_a_purchase(world: World) -> None:
    """Stripe creates the customer and the session, but answers both requests with 500."""
    collector, sandbox = world.collector, world.sandbox
    created = collector.send("POST", "/v1/customers", {"name": "patient", "tier": "basic"})
    assert created.status == 201, created
    after = len(sandbox.journal("customer.created"))
    sandbox.faults(*({"kind": "error_after", "count": 1, "method": "POST", "path": f"/v1/{path}"} for path in CREATED))
    buy = {"millicredits": 20_000_000, "success_url": "https://shop.example/paid"}
    bought = collector.send("POST", "/billing/checkout?customer=patient", buy, Idempotency_Key="patient")
    assert bought.status == 201, bought
    assert len(sandbox.journal("customer.created")) == after + 1


def test_low_credits_are_topped_up_with_the_saved_card_if_enabled(world: World) -> None:
    collector, sandbox, path = world.collector, world.sandbox, "/billing/credits/top-up"
    tokens = {}
    for name, metadata in (("refilled", {}), ("other", {}), ("firm", {"business": "true"})):
        created = collector.send("POST", "/v1/customers", {"name": name, "tier": "basic", "metadata": metadata})
        assert created.status == 201, created
        tokens[name] = collector.send("POST", "/v1/tokens", {"name": f"of-{name}", "customer": name}).json()["secret"]
    token = tokens["refilled"]
    amounts = {"below": 5_000_000, "millicredits": 20_000_000, "month_max": 40_000_000}

    def put(body: dict[str, Any], token: str = token, path: str = path) -> tuple[int, Any]:
        answer = collector.send("PUT", path, body, token=token)
        return answer.status, answer.json()

    def show(token: str = token) -> dict[str, Any]:
        shown: dict[str, Any] = collector.get(path, token=token).json()
        return shown

    def save_card(name: str) -> None:
        """Save a card that pays without its owner, as on Stripe's page."""
        portal = collector.send("POST", "/billing/portal", {"return_url": "https://shop.example/"}, token=tokens[name])
        assert portal.status == 201, portal
        (payer,) = [
            one["id"] for one in sandbox.call("GET", "/v1/customers?limit=100").json()["data"] if one["name"] == name
        ]
        card = "invoice_settings[default_payment_method]=pm_card_visa"
        assert sandbox.call("POST", f"/v1/customers/{payer}", card).status == 200

    assert (show()["state"], show()["below"]) == ("off", None)
    assert (put(amounts)[0], put(amounts)[1]["code"]) == (409, "payment-method-missing")
    save_card("refilled")
    save_card("firm")
    assert (put(amounts, tokens["firm"])[0], put(amounts, tokens["firm"])[1]["code"]) == (422, "tax-number-missing")
    wrong = (
        ({"millicredits": 4_990_000}, ["millicredits"]),
        ({"below": 20_010_000}, ["below"]),
        ({"below": 5_000_001}, ["below"]),
        ({"month_max": 19_990_000}, ["month_max"]),
        ({"month_max": 1_000_010_000_000}, ["month_max"]),
        ({"below": 0}, ["below"]),
    )
    for change, fields in wrong:
        status, body = put(amounts | change)
        assert (status, [error["field"] for error in body["errors"]]) == (422, fields), body
    assert put(amounts, path=f"{path}?dry_run=true")[1]["state"] == "on"
    assert show()["state"] == "off", "a dry run changes nothing"
    assert put(amounts, tokens["other"], f"{path}?customer=refilled")[0] == 403
    assert collector.send("DELETE", f"{path}?customer=refilled", token=tokens["other"]).status == 403
    assert collector.get(path, token=tokens["other"], customer="refilled").status == 403
    assert put(amounts, READ, f"{path}?customer=refilled")[0] == 403

    assert put(amounts)[1]["state"] == "on"

    def is_paid() -> bool:  # From the database, because the API limits the request rate.
        return collector.execute("SELECT 1 FROM credit_top_ups WHERE spent = 20000000 AND purchase IS NULL") != []

    until(is_paid, "the purchase is paid", seconds=40)
    assert collector.get("/billing/balance", token=token).json()["balance"] == 20_000_000
    (purchase,) = collector.get("/billing/purchases", token=token).json()["purchases"]
    assert (purchase["is_automatic"], purchase["cents"], purchase["has_receipt"]) == (True, 2000, True)
    refund = {"purchase": purchase["id"], "why": "it was not meant"}
    assert collector.send("POST", "/billing/refunds", refund).status == 202
    assert (show()["state"], show()["spent"]) == ("off", 20_000_000), "an operator does not buy the credits again"
    answer = collector.send("DELETE", path, token=token)
    assert (answer.status, answer.json()["state"]) == (200, "off")
    entries = collector.get("/v1/audit", token="admin-token", action="credits.top_up").json()["entries"]
    assert [(entry["actor"], entry["after"]["state"]) for entry in entries] == [("of-refilled", "on"), ("admin", "off")]


def test_credits_are_bought_once_and_refunded_once(world: World) -> None:
    """From Checkout through duplicated and shuffled webhooks to the refund."""
    collector, sandbox = world.collector, world.sandbox
    created = collector.send("POST", "/v1/customers", {"name": "buyer", "tier": "basic"})
    assert created.status == 201, created
    token = collector.send("POST", "/v1/tokens", {"name": "of-buyer", "customer": "buyer"}).json()["secret"]

    def balance() -> dict[str, Any]:
        answer = collector.get("/billing/balance", token=token)
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.json()
        return body

    sandbox.faults({"kind": "webhook_duplicated"}, {"kind": "webhook_shuffled"})
    bought = {"millicredits": 20_000_000, "success_url": "https://shop.example/paid"}
    sessions = {
        collector.send("POST", "/billing/checkout", bought, token=token, Idempotency_Key="once").body for _ in range(2)
    }
    (body,) = sessions
    session = orjson.loads(body)
    assert session["url"].startswith(sandbox.url)
    assert balance()["balance"] == 0, "the purchase is not paid yet"
    paid = ask(sandbox.port, f"/_sandbox/checkout/{session['id']}/pay", method="POST", body=b"")
    assert (paid.status, paid["location"]) == (303, "https://shop.example/paid")
    until(lambda: balance()["balance"] == 20_000_000, "the credits are there")
    assert collector.get("/billing/balance", token="admin-token", customer="buyer").json()["usd"] == "20.00"

    business = {"name": "a-business", "tier": "basic", "metadata": {"business": "true"}}
    assert collector.send("POST", "/v1/customers", business).status == 201
    refused = collector.send("POST", "/billing/checkout?customer=a-business", bought)
    assert (refused.status, "a tax id that is valid" in refused.json()["detail"]) == (422, True)

    too_much = {"purchase": session["id"], "millicredits": 20_010_000, "why": "asked"}
    assert collector.send("POST", "/billing/refunds", too_much).status == 409
    refund = {"purchase": session["id"], "millicredits": 5_000_000, "why": "asked"}
    refunded_before = len(sandbox.journal("refund.created"))
    for _ in range(2):
        answer = collector.send("POST", "/billing/refunds", refund, Idempotency_Key="back")
        assert (answer.status, answer.json()["cents"]) == (202, 500), answer
    assert balance()["balance"] == 15_000_000
    month = collector.get("/billing/statements", token=token).json()["statements"][0]

    def kinds() -> list[tuple[str, int]]:
        lines = collector.get(f"/billing/statements/{month}", token=token).json()["lines"]
        return [(line["kind"], line["millicredits"]) for line in lines]

    assert kinds() == [("purchase", 20_000_000), ("refund", -5_000_000)]
    assert len(sandbox.journal("refund.created")) == refunded_before + 1
    sandbox.faults()
    # The rest is refunded at Stripe by hand.

    async def all_of_it(client: stripe.StripeClient) -> None:
        paid = await client.v1.checkout.sessions.retrieve_async(session["id"])
        await client.v1.refunds.create_async({"payment_intent": str(paid.payment_intent)})

    sandbox.run(all_of_it)
    until(lambda: balance()["balance"] == 0, "the refund is booked")
    assert kinds()[-1] == ("chargeback", -15_000_000)
    portal = collector.send("POST", "/billing/portal", {"return_url": "https://shop.example/"}, token=token)
    assert (portal.status, portal.json()["url"].startswith(sandbox.url)) == (201, True)
    for action, target in (("credits.checkout", session["id"]), ("billing.portal", portal.json()["id"])):
        entries = collector.get("/v1/audit", token="admin-token", action=action, order="newest").json()["entries"]
        assert (entries[0]["actor"], entries[0]["after"]["session"]) == ("of-buyer", target)
    file = collector.settings["database"].removeprefix("sqlite:///")

    def booked() -> list[str]:
        with closing(sqlite3.connect(file)) as database:
            own = (
                "SELECT kind FROM credit_transactions WHERE customer = (SELECT id FROM customers WHERE name = 'buyer')"
            )
            return sorted(row[0] for row in database.execute(own))

    until(lambda: booked() == ["chargeback", "purchase", "refund", "refund_paid"], "all is booked once")
    code, output = checked(collector)
    assert (code, "credit transaction" in output) == (0, True), output
