"""Plans, subscriptions and invoices over HTTP. The collector charges at the Stripe sandbox."""

import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from fractions import Fraction
from http.client import HTTPConnection
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.billing.rating.periods import period_at
from loadtest.testbed.collector import ADMIN, OWN, READ, SERVICE, Collector, sha256
from loadtest.testbed.fork_server import PAUSES
from loadtest.testbed.http_client import Answer, answer_of, ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.second_rater import nearest
from tests.support.stripe_sandbox import KEY, Sandbox

BILLING = "billing-token"
METERS = ("llm_tokens", "agent_executions", "api_calls", "storage_gb", "seats")
WORKED = dict(zip(METERS, (1_234_567, 5003, 100_015, 112, 27), strict=True))
ADDRESSES = (f"127.0.{number // 250}.{number % 250 + 2}" for number in itertools.count())
"""Source addresses. Changes are limited per address, and the tests make more than one address may."""
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def charging(tmp_path_factory: pytest.TempPathFactory, own_sandbox: Sandbox) -> Iterator[Collector]:
    """A collector on SQLite that charges all customers. Their first fee is that of a whole month: of the last hours of
    a calendar month it would be less than Stripe charges.
    """
    folder = tmp_path_factory.mktemp("charging")
    (folder / "key").write_text(f"{KEY}\n")
    stripe = {"base": own_sandbox.url, "key": str(folder / "key")}
    older = "  team@1: {fee: '10', tier: basic}\n  team@2: {fee: '20', tier: basic}\n"
    older += "  crew@1: {fee: '10', tier: basic, annual: {discount: 10%}, quantity: {max: 20}}\n"
    older += "  tried@1: {fee: '10', tier: basic, trial: {days: 7, card: required}}\n"
    (folder / "plans.yaml").write_text(f"{(ROOT / 'loadtest/testbed/plans.yaml').read_text()}\n{older}")
    billing = {"plans": str(folder / "plans.yaml"), "mode": "live", "freeze": "0s", "anchor": "signup"}
    billing["stripe"] = stripe
    billing["coupons"] = {"HALF": {"percent_off": "50%"}, "PAST": {"percent_off": "50%", "redeem_by": "2020-01-01"}}
    meters = {"requests": {"count": "requests"}, **{name: {"count": "events"} for name in METERS}}
    collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", billing=billing, meters=meters)
    collector.settings["tokens"].append({"name": "billing", "sha256": sha256(BILLING), "role": "billing"})
    where = f"url=http://{HOST}:{collector.port}/billing/webhooks/stripe&enabled_events[]=invoice.paid"
    hook = own_sandbox.call("POST", "/v1/webhook_endpoints", where).json()
    (folder / "hooks").write_text(hook["secret"])
    stripe["webhook_secrets"] = str(folder / "hooks")
    collector.environ[PAUSES] = "edgeproxy.collector.jobs.billing:SPEND_SECONDS=0.5"
    with closing(collector):
        yield collector.start()
    own_sandbox.call("DELETE", f"/v1/webhook_endpoints/{hook['id']}")


def call(
    collector: Collector, method: str, path: str, said: Any = None, *, token: str | None = ADMIN, **fields: str
) -> Answer:
    """Send a request from a new source address."""
    connection = HTTPConnection(HOST, collector.port, timeout=15, source_address=(next(ADDRESSES), 0))
    sent = {name.replace("_", "-"): value for name, value in fields.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    connection.request(method, path, None if said is None else orjson.dumps(said), sent)
    with closing(connection):
        return answer_of(connection.getresponse())


def customer(collector: Collector, *, has_contact: bool = True) -> str:
    """Create a customer and return its name."""
    name = f"payer-{next(NUMBERS)}"
    assert call(collector, "POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
    if has_contact:
        add_contact(collector, name)
    return name


def add_contact(collector: Collector, name: str) -> None:
    contact = {"email": f"{name}@example.com", "role": "owner"}
    assert call(collector, "POST", f"/v1/customers/{name}/contacts", contact).status == 201


def own(collector: Collector, name: str) -> str:
    """Create a token of a customer and return its secret."""
    created = call(collector, "POST", "/v1/tokens", {"name": f"of-{name}", "customer": name})
    return str(created.json()["secret"])


def use(collector: Collector, name: str, used: dict[str, int]) -> None:
    """Report usage as a service does."""
    events = [
        {"source": "test", "id": f"{name}-{next(NUMBERS)}", "customer": name, "meter": meter, "value": value}
        for meter, value in used.items()
    ]
    taken = call(collector, "POST", "/v1/events", events, token=SERVICE)
    assert (taken.status, taken.json()["rejected"]) == (202, []), taken


def amounts(charging: Any, invoice: str, token: str) -> tuple[int, ...]:
    """Return an invoice's amounts due, paid, credited and refunded, as its customer reads them."""
    listed = call(charging, "GET", "/billing/invoices", token=token).json()["invoices"]
    (one,) = [one for one in listed if one["id"] == invoice]
    return tuple(one[f"amount_{name}"] for name in ("due", "paid", "credited", "refunded"))


def states(collector: Collector, name: str) -> list[str]:
    """Return the states of a customer's invoices from the database, because the API limits the request rate."""
    of = "SELECT state FROM invoices JOIN customers ON customers.id = invoices.customer WHERE name = ?"
    return [state for (state,) in collector.execute(of, [name])]


def test_subscription_leads_to_a_paid_invoice(charging: Collector, own_sandbox: Sandbox) -> None:
    sold = call(charging, "GET", "/billing/plans", token=None).json()
    plans = {plan["plan"]: plan for plan in sold["plans"]}
    assert sold["meters"]["llm_tokens"] == {"label": "LLM tokens", "unit": None, "scale": None}
    fees = {name: plan["fee"] for name, plan in plans.items()}
    assert fees == {"free": 0, "standard": 9900, "enterprise": 49900, "team": 2000, "crew": 1000, "tried": 1000}
    assert (plans["standard"]["trial"], plans["tried"]["trial"]) == (None, {"days": 7, "card": "required"})
    assert plans["standard"]["meters"]["llm_tokens"] == {"included": 1_000_000, "cap": None, "price": "0.001"}
    assert call(charging, "GET", "/billing/status", token=None).json()["charging"] is True
    name = customer(charging)
    token = own(charging, name)
    preview = call(charging, "POST", "/billing/subscription/preview", {"plan": "standard"}, token=token).json()
    assert call(charging, "GET", "/billing/subscription", token=token).status == 404, "nothing has changed"
    told = call(charging, "POST", "/billing/subscription", {"plan": "standard"}, token=token, Idempotency_Key="k1")
    assert told.status == 201, told
    again = call(charging, "POST", "/billing/subscription", {"plan": "standard"}, token=token, Idempotency_Key="k1")
    assert (again.json(), again["idempotent-replayed"]) == (told.json(), "true")
    other = call(charging, "POST", "/billing/subscription", {"plan": "free"}, token=token, Idempotency_Key="k1")
    assert other.status == 422
    assert call(charging, "GET", f"/v1/customers/{name}").json()["tier"] == "standard", "the edge follows"
    (fee,) = preview["lines"]
    assert fee["amount"] == 9900

    use(charging, name, WORKED)
    coming = call(charging, "GET", "/billing/invoices/upcoming", token=token).json()
    assert coming["total"] == 11767
    assert [line["amount"] for line in coming["lines"] if line["amount"]] == [9900, 235, 30, 2, 600, 1000]
    used = call(charging, "GET", "/billing/usage/llm_tokens", token=token).json()["meters"]
    assert [(meter["quantity"], meter["is_over"], meter["percentage"]) for meter in used] == [(1_234_567, True, 123.46)]
    value = call(charging, "GET", "/v1/usage/value?meter=llm_tokens", token=token).json()
    assert (value["quantity"], value["currency"]) == (1_234_567, "usd")
    assert value["amount"] == 235, "as the invoice has it"
    for path, status in (("?meter=llm_tokens", 422), ("", 400), (f"?meter=llm_tokens&customer={name}", 200)):
        assert call(charging, "GET", f"/v1/usage/value{path}").status == status, path
    grouped = call(charging, "GET", "/v1/usage/value?meter=llm_tokens&by=route", token=token).json()
    assert [(group["quantity"], group["amount"]) for group in grouped["groups"]] == [(1_234_567, 235)]
    assert call(charging, "GET", "/v1/usage/value?meter=llm_tokens&by=day", token=token).status == 400
    costs = call(charging, "GET", "/billing/plans/costs", token=token).json()
    by_plan = {plan["version"]: plan for plan in costs["plans"]}
    assert by_plan["standard@1"]["total"] == coming["total"]
    assert by_plan["standard@1"]["meters"]["llm_tokens"] == 235
    assert by_plan["enterprise@1"]["total"] == 49900 + sum(by_plan["enterprise@1"]["meters"].values())
    unpriced = call(charging, "GET", f"/v1/usage/value?meter=nothing&customer={name}").json()
    assert (unpriced["quantity"], unpriced["amount"]) == (0, None)

    until(lambda: states(charging, name) == ["open"], "the first fee is sent")
    (sent,) = call(charging, "GET", "/billing/invoices", token=token).json()["invoices"]
    assert (sent["kind"], sent["total"]) == ("start", fee["amount"])
    pdf = call(charging, "GET", f"/billing/invoices/{sent['id']}/pdf", token=token)
    assert pdf.status == 303
    assert pdf["location"].startswith(own_sandbox.url)
    paid = own_sandbox.call("POST", f"/v1/invoices/{sent['stripe_id']}/pay", "payment_method=pm_card_visa")
    assert paid.json()["status"] == "paid"
    until(lambda: states(charging, name) == ["paid"], "a webhook says so")

    # Part of it is credited, once.
    note = {"amount": 100, "why": "an outage"}
    asked = call(charging, "POST", f"/billing/invoices/{sent['id']}/credit", note)
    assert asked.status == 201, asked
    too_much = call(charging, "POST", f"/billing/invoices/{sent['id']}/credit", note | {"amount": fee["amount"]})
    assert too_much.status == 422

    def notes() -> list[tuple[int, str]]:
        listed = own_sandbox.call("GET", f"/v1/credit_notes?invoice={sent['stripe_id']}").json()["data"]
        return [(one["total"], one["memo"]) for one in listed]

    until(lambda: notes() == [(100, "an outage")], "the credit note is at Stripe")
    until(
        lambda: amounts(charging, sent["id"], token) == (0, fee["amount"], 100, 100), "the amount is shown as refunded"
    )
    one = call(charging, "GET", f"/billing/invoices/{sent['id']}", token=token).json()
    assert [(note["amount"], note["refunded"], note["state"]) for note in one["credit_notes"]] == [(100, 100, "made")]

    # An upgrade takes effect at once, a downgrade does not, and a period allows one change.
    before = call(charging, "GET", "/billing/subscription", token=token)
    dry = call(charging, "PUT", "/billing/subscription?dry_run=true", {"plan": "enterprise"}, token=token)
    assert (dry.status, dry.json()["plan"]) == (200, "enterprise@1")
    assert call(charging, "GET", "/billing/subscription", token=token).json() == before.json()
    stale = call(charging, "PUT", "/billing/subscription", {"plan": "enterprise"}, token=token, If_Match='"9"')
    assert stale.status == 412
    due = call(charging, "POST", "/billing/subscription/preview", {"plan": "enterprise"}, token=token).json()
    assert due["lines"][0]["amount"] < 0 < due["due_now"]
    upgraded = call(charging, "POST", "/billing/upgrade?tier=enterprise", token=token)
    assert (upgraded.status, upgraded.json()["plan"]) == (200, "enterprise@1")
    assert call(charging, "GET", f"/v1/customers/{name}").json()["tier"] == "enterprise"
    lower = call(charging, "PUT", "/billing/subscription", {"plan": "standard"}, token=token).json()
    assert (lower["plan"], lower["next_plan"]) == ("enterprise@1", "standard@1")
    assert call(charging, "POST", "/billing/upgrade?tier=enterprise", token=token).status == 200
    ended = call(charging, "DELETE", "/billing/subscription", token=token).json()
    assert ended["cancel_at"] == ended["period_end"]
    entries = charging.get("/v1/audit", token=ADMIN, target=name, limit="1000").json()["entries"]
    actions = [entry["action"] for entry in entries]
    assert actions[:5] == [
        "customer.create",
        "customer.contacts",
        "customer.currency",
        "customer.change",
        "subscription.create",
    ]
    assert {entry["actor"] for entry in entries if entry["action"].startswith("subscription")} == {f"of-{name}"}


def test_customer_cannot_read_another_customers_billing(charging: Collector) -> None:
    name = customer(charging)
    assert call(charging, "POST", f"/billing/subscription?customer={name}", {"plan": "standard"}).status == 201
    (theirs,) = call(charging, "GET", f"/billing/invoices?customer={name}").json()["invoices"]
    paths = ["subscription", "usage", "usage/seats", "quotas", "invoices", "invoices/upcoming", "spend-alerts"]
    for path in (*paths, f"invoices/{theirs['id']}", f"invoices/{theirs['id']}/pdf"):
        text = f"/billing/{path}" if theirs["id"] in path else f"/billing/{path}?customer={name}"
        assert call(charging, "GET", text, token=OWN).status == 403, path
        assert call(charging, "GET", text, token=READ).status == 403, "reading usage is not reading money"
        assert call(charging, "GET", text, token=None).status == 401
        if theirs["id"] not in path:
            assert call(charging, "GET", text, token=BILLING).status == 200, path
            assert call(charging, "GET", f"/billing/{path}").status == (200 if path == "invoices" else 422), path
    for method, said in (("POST", {"plan": "free"}), ("PUT", {"plan": "free"}), ("DELETE", None)):
        answer = call(charging, method, f"/billing/subscription?customer={name}", said, token=OWN)
        assert answer.status == 403
    said = {"amounts": [100]}
    assert call(charging, "PUT", f"/billing/spend-alerts?customer={name}", said, token=OWN).status == 403
    for act in ("hold", "accept", "void", "credit", "settle", "write-off"):
        said = {"why": "because", **({"amount": 1} if act in ("credit", "settle") else {})}
        path = f"/billing/invoices/{theirs['id']}/{act}"
        assert call(charging, "POST", path, said, token=OWN).status == 403
        assert call(charging, "POST", path, said, token=BILLING).status == 403, "a second factor is asked for"
    until(lambda: states(charging, name) == ["open"], "the invoice is sent")
    credits = f"/billing/invoices/{theirs['id']}/credit"
    assert call(charging, "POST", credits, {"why": "a mistake", "amount": 10**9}).status == 422
    created = call(charging, "POST", credits, {"why": "a mistake", "amount": 1}, Idempotency_Key="c1")
    assert (created.status, created.json()["state"]) == (201, "requested")
    for act in ("hold", "accept"):
        assert call(charging, "POST", f"/billing/invoices/{theirs['id']}/{act}", {"why": "x"}).status == 409
    voided = call(charging, "POST", f"/billing/invoices/{theirs['id']}/void", {"why": "a mistake"})
    assert voided.json()["state"] == "voiding"
    until(lambda: states(charging, name) == ["void"], "the invoice is void")


def test_spend_alert_is_raised_for_amounts_chosen_by_the_customer(charging: Collector) -> None:
    name = customer(charging)
    token = own(charging, name)
    put = call(charging, "PUT", "/billing/spend-alerts", {"amounts": [500_000_000, 1, 1]}, token=token)
    assert (put.status, put.json()["amounts"], put.json()["spent"]) == (200, [1, 500_000_000], None)
    for wrong in ([0], [1.5], ["1"], [10**12 + 1], list(range(1, 12)), 7):
        refused = call(charging, "PUT", "/billing/spend-alerts", {"amounts": wrong}, token=token)
        assert refused.status == 422, wrong
    assert call(charging, "POST", "/billing/subscription", {"plan": "standard"}, token=token).status == 201
    assert call(charging, "GET", "/billing/spend-alerts", token=token).json()["spent"] > 0

    def raised() -> list[dict[str, Any]]:
        listed = call(charging, "GET", "/v1/alerts", token=token).json()["alerts"]
        return [alert for alert in listed if alert["kind"] == "spend_reached"]

    until(raised, "the amount is reached", seconds=90)
    (alert,) = raised()
    assert alert["details"]["amount_cents"] == 1
    assert call(charging, "GET", "/v1/alerts", token=OWN).json()["alerts"] == [], "other customers see no alert"


def test_month_of_a_large_plan_is_exact_to_the_cent(charging: Collector) -> None:
    """The second row of the example table; a test above covers the first."""
    name = customer(charging)
    token = own(charging, name)
    assert call(charging, "POST", "/billing/subscription", {"plan": "enterprise"}, token=token).status == 201
    use(charging, name, dict(zip(METERS, (12_345_678, 50_000, 1_000_010, 1001, 400), strict=True)))
    coming = call(charging, "GET", "/billing/invoices/upcoming", token=token).json()
    assert coming["total"] == 51099
    assert [line["amount"] for line in coming["lines"] if line["amount"]] == [49900, 1173, 1, 25]
    ended = call(charging, "GET", "/billing/invoices/upcoming?ended=true", token=token).json()
    assert [line["amount"] for line in ended["lines"] if line["amount"]] == [1173, 1, 25], "no fee of a next month"
    assert (ended["closes_at"] < coming["closes_at"], ended["period"]) == (True, coming["period"])
    call(charging, "DELETE", "/billing/subscription?when=now", token=token)
    (draft,) = call(charging, "GET", "/billing/invoices?state=draft", token=token).json()["invoices"]
    closes = [datetime.fromisoformat(one["closes_at"]).timestamp() for one in (ended, draft)]
    assert (draft["period"], abs(closes[1] - closes[0]) <= 60) == (ended["period"], True), closes


def test_cancellation_reason_is_removed_if_the_plan_continues(charging: Collector) -> None:
    name = customer(charging)
    token = own(charging, name)
    ending, listed = "/billing/subscription/cancel", f"/billing/cancellations?customer={name}"
    assert call(charging, "POST", ending, {}, token=token).status == 404
    assert call(charging, "POST", "/billing/subscription", {"plan": "standard"}, token=token).status == 201
    for wrong in ({"reason": "boredom"}, {"comment": ""}, {"comment": "x" * 501}, {"comment": "a\0b"}):
        assert call(charging, "POST", ending, wrong, token=token).status == 422, wrong
    why = {"reason": "too_complex", "comment": "Two lines\nof Jane Roe."}
    ended = call(charging, "POST", ending, why, token=token)
    assert (ended.status, ended.json()["cancel_at"]) == (200, ended.json()["period_end"])
    (told,) = call(charging, "GET", listed).json()["cancellations"]
    assert (told["reason"], told["comment"], told["plan"]) == (why["reason"], why["comment"], "standard@1")
    audit = charging.get("/v1/audit", token=ADMIN, target=name).json()["entries"]
    assert "Jane Roe" not in str(audit), "the log is for good, and a person's words are not"
    assert call(charging, "PUT", "/billing/subscription", {"plan": "standard"}, token=token).json()["cancel_at"] is None
    assert call(charging, "GET", listed).json()["cancellations"] == []
    assert (
        call(charging, "POST", ending, {"when": "now", "reason": "unused"}, token=token).json()["state"] == "canceled"
    )
    (told,) = call(charging, "GET", "/billing/cancellations", token=token).json()["cancellations"]
    assert (told["reason"], told["comment"]) == ("unused", None)


def refuse_both(charging: Collector, method: str, terms: dict[str, str], token: str) -> Answer:
    """Return the refusal of a change, and assert that its preview has an equal refusal."""
    preview = call(charging, "POST", "/billing/subscription/preview", terms, token=token)
    refused = call(charging, method, "/billing/subscription", terms, token=token)
    seen, said = ((one.status, one.json().get("detail"), one.json().get("errors")) for one in (preview, refused))
    assert seen == said, (preview, refused)
    return refused


def test_plan_without_a_new_trial_needs_no_payment_method(charging: Collector) -> None:
    token, _ = subscribe(charging, plan="free")
    preview, changed = preview_and_change(charging, token, plan="tried")
    assert (preview["when"], changed["plan"], changed["trial_ends_at"]) == ("now", "tried@1", None)
    other, _ = subscribe(charging, plan="free")
    assert call(charging, "DELETE", "/billing/subscription?when=now", token=other).status == 200
    _, again = preview_and_change(charging, other, "POST", plan="tried")
    assert (again["plan"], again["state"]) == ("tried@1", "active"), (
        "a subscription resumed within its period has no trial"
    )


def test_trial_without_its_payment_method_is_refused_except_for_staff(
    charging: Collector, own_sandbox: Sandbox
) -> None:
    name, other = customer(charging), customer(charging)
    token, plan = own(charging, name), {"plan": "tried"}
    refused = refuse_both(charging, "POST", plan, token)
    assert (refused.status, "needs a payment method" in refused.json()["detail"]) == (409, True)
    assert call(charging, "POST", f"/billing/subscription?customer={other}", plan).json()["state"] == "trialing"
    assert call(charging, "POST", "/billing/portal", {"return_url": "https://shop.example"}, token=token).status == 201
    assert call(charging, "POST", "/billing/subscription", plan, token=token).status == 409, "still without a card"
    listed = own_sandbox.call("GET", "/v1/customers?limit=100").json()["data"]
    (stripe_id,) = [one["id"] for one in listed if one["name"] == name]
    card = "invoice_settings[default_payment_method]=pm_card_visa"
    assert own_sandbox.call("POST", f"/v1/customers/{stripe_id}", card).status == 200
    preview = call(charging, "POST", "/billing/subscription/preview", plan, token=token).json()
    begun = call(charging, "POST", "/billing/subscription", plan, token=token).json()
    assert (preview["due_now"], preview["lines"], begun["state"]) == (0, [], "trialing")
    assert preview["trial_ends_at"] <= begun["trial_ends_at"] == begun["period_end"]
    assert call(charging, "GET", "/billing/invoices", token=token).json()["invoices"] == []
    assert call(charging, "DELETE", "/billing/subscription?when=now", token=token).json()["state"] == "canceled"
    again = call(charging, "POST", "/billing/subscription", plan, token=token).json()
    assert (again["state"], again["trial_ends_at"]) == ("active", None), "a customer has one trial"


def test_customer_without_a_contact_cannot_take_a_paid_plan(charging: Collector) -> None:
    name, other = customer(charging, has_contact=False), customer(charging, has_contact=False)
    token, plan = own(charging, name), {"plan": "standard"}
    refused = refuse_both(charging, "POST", plan, token)
    assert (refused.status, "no invoice could reach you" in refused.json()["detail"]) == (409, True)
    assert call(charging, "POST", "/billing/subscription", {"plan": "free"}, token=token).status == 201
    assert refuse_both(charging, "PUT", plan, token).status == 409
    assert refuse_both(charging, "PUT", {**plan, "when": "period_end"}, token).status == 409
    call(charging, "DELETE", "/billing/subscription?when=now", token=token)
    assert refuse_both(charging, "POST", plan, token).status == 409, "a resumption"
    assert call(charging, "POST", "/billing/subscription", {"plan": "free"}, token=token).status == 201
    staff = call(charging, "POST", f"/billing/subscription/preview?customer={name}", plan)
    assert staff.status == 200, "staff may"
    add_contact(charging, name)
    assert call(charging, "PUT", "/billing/subscription", plan, token=token).status == 200
    assert call(charging, "POST", f"/billing/subscription?customer={other}", plan).status == 201, "staff may"


def test_a_coupon_comes_with_a_subscription_and_codes_cannot_be_guessed(charging: Collector) -> None:
    name, other = customer(charging), customer(charging)
    token, began = own(charging, name), {"plan": "enterprise", "coupon": "half"}
    wrong = [
        call(charging, "POST", "/billing/subscription", {"plan": "enterprise", "coupon": code}, token=token)
        for code in ("PAST", "NONE")
    ]
    assert [answer.status for answer in wrong] == [422, 422]
    assert wrong[0].body == wrong[1].body, "a code that was one is as one that never was"
    about = f"?customer={name}"
    body = call(charging, "POST", f"/billing/subscription{about}", {"plan": "enterprise", "coupon": "PAST"}).json()
    assert body["errors"] == [{"field": "coupon", "code": "invalid", "detail": "it can be redeemed no more"}], (
        "staff hear why"
    )
    preview = call(charging, "POST", "/billing/subscription/preview", began, token=token).json()
    fee, discount = preview["lines"]
    assert (discount["kind"], discount["value"], discount["unit_price"]) == ("discount", "HALF", "0.5")
    assert preview["due_now"] == fee["amount"] + discount["amount"] == fee["amount"] - nearest(fee["amount"] / 2, "usd")
    assert call(charging, "POST", "/billing/subscription", began, token=token).status == 201
    (invoice,) = call(charging, "GET", "/billing/invoices", token=token).json()["invoices"]
    assert abs(invoice["subtotal"] - preview["due_now"]) <= 1
    assert call(charging, "GET", "/billing/subscription/coupon", token=token).json()["percent_off"] == "50"
    again = [call(charging, "POST", "/billing/subscription/preview", began, token=token) for _ in range(2)]
    assert [answer.status for answer in again] == [409, 429]
    assert call(charging, "DELETE", "/billing/subscription/coupon", token=token).status == 403
    ended = call(charging, "DELETE", f"/billing/subscription/coupon{about}").json()
    assert ended["ends_at"] == call(charging, "GET", "/billing/subscription", token=token).json()["period_end"]
    assert call(charging, "PUT", f"/billing/subscription/coupon{about}", {"coupon": "HALF"}).status == 422
    staff = f"/billing/subscription/coupon?customer={other}"
    assert call(charging, "PUT", staff, {"coupon": "HALF"}).status == 404, "without a subscription"
    assert call(charging, "POST", f"/billing/subscription?customer={other}", {"plan": "standard"}).status == 201
    tried = call(charging, "PUT", f"{staff}&dry_run=true", {"coupon": "HALF"})
    assert (tried.status, call(charging, "GET", staff).status) == (200, 404), "nothing has changed"
    assert call(charging, "PUT", staff, {"coupon": "HALF"}).json()["coupon"] == "HALF"


def test_a_version_that_is_not_sold_any_more_is_for_staff_to_give(charging: Collector) -> None:
    name = customer(charging)
    token, whose = own(charging, name), f"?customer={name}"
    for path in ("subscription", "subscription/preview"):
        assert call(charging, "POST", f"/billing/{path}", {"plan": "team@1"}, token=token).status == 422
    assert call(charging, "POST", f"/billing/subscription{whose}", {"plan": "team@1"}).json()["plan"] == "team@1"
    for method, path in (("PUT", "subscription"), ("POST", "subscription/preview")):
        kept = call(charging, method, f"/billing/{path}", {"plan": "team@1"}, token=token)
        assert kept.status == 409, "the customer has this plan already"
    newest = {"plan": "team@2", "when": "period_end"}
    assert call(charging, "POST", "/billing/subscription/preview", newest, token=token).status == 200
    (invoice,) = call(charging, "GET", "/billing/invoices", token=token).json()["invoices"]
    charging.execute("UPDATE invoices SET held_why = 'a suspicion' WHERE id = ?", [invoice["id"]])
    one = f"/billing/invoices/{invoice['id']}"
    assert call(charging, "GET", one).json()["held_why"] == "a suspicion"
    assert call(charging, "GET", one, token=token).json()["held_why"] is None, "staff wrote it for staff"
    assert call(charging, "GET", "/billing/invoices", token=token).json()["invoices"][0]["held_why"] is None


@pytest.mark.parametrize(
    ("method", "path", "said", "status"),
    [
        ("POST", "subscription", {"plan": "gold"}, 422),
        ("POST", "subscription", {"plan": "standard@1+acme"}, 422),
        ("POST", "subscription", {"plan": "../etc"}, 422),
        ("POST", "subscription", {"plan": "free", "interval": "year"}, 422),
        ("POST", "subscription", {"plan": "free", "interval": "week"}, 422),
        ("POST", "subscription", {"plan": "free", "quantity": 2}, 422),
        ("POST", "subscription", {"plan": "crew", "quantity": 21}, 422),
        ("POST", "subscription", {"plan": "crew", "quantity": 0}, 422),
        ("POST", "subscription", {"plan": 10**15}, 422),
        ("POST", "subscription", {}, 422),
        ("PUT", "subscription", {"plan": "standard"}, 404),
        ("DELETE", "subscription", None, 404),
        ("POST", "upgrade?tier=gold", None, 404),
        ("GET", "invoices?limit=0", None, 400),
        ("GET", "invoices/nowhere", None, 404),
        ("GET", "invoices/00000000-0000-7000-8000-000000000000", None, 404),
        ("GET", "usage/%00", None, 404),
    ],
)
def test_invalid_billing_request_is_refused_and_changes_nothing(
    charging: Collector, method: str, path: str, said: Any, status: int
) -> None:
    name = customer(charging)
    whose = "" if path.startswith("invoices/") else f"{'&' if '?' in path else '?'}customer={name}"
    answer = call(charging, method, f"/billing/{path}{whose}", said)
    assert answer.status == status, answer
    assert answer["content-type"] == "application/problem+json"
    assert call(charging, "GET", f"/v1/customers/{name}").json()["tier"] == "basic"
    assert call(charging, "GET", f"/billing/invoices?customer={name}").json()["invoices"] == []


def test_a_customer_may_request_ten_changes_a_minute(charging: Collector) -> None:
    answers = [ask(charging.port, "/billing/subscription", method="DELETE", fields=OF_NOBODY) for _ in range(12)]
    statuses = [answer.status for answer in answers]
    assert statuses == [404] * 10 + [429] * 2
    assert 1 <= int(answers[-1]["retry-after"]) <= 70
    assert ask(charging.port, "/billing/plans").status == 200, "other requests are served"


OF_NOBODY = {"Authorization": f"Bearer {OWN}"}


def subscribe(charging: Collector, **terms: Any) -> tuple[str, dict[str, Any]]:
    """Return a token of a new customer with a subscription, and the subscription."""
    token = own(charging, customer(charging))
    created = call(charging, "POST", "/billing/subscription", terms, token=token)
    assert created.status == 201, created
    return token, created.json()


def preview_and_change(charging: Collector, token: str, method: str = "PUT", **terms: Any) -> tuple[Any, Any]:
    """Return the preview of a change, and the subscription after it. The change's invoice must equal the preview."""
    before = len(call(charging, "GET", "/billing/invoices", token=token).json()["invoices"])
    preview = call(charging, "POST", "/billing/subscription/preview", terms, token=token).json()
    changed = call(charging, method, "/billing/subscription", terms, token=token)
    assert changed.status in (200, 201), changed
    listed = call(charging, "GET", "/billing/invoices", token=token).json()["invoices"]
    assert preview["withdrawn"] == changed.json().get("withdrawn"), (preview, changed)
    new = [invoice["total"] for invoice in listed[: len(listed) - before]]
    assert new == ([preview["due_now"]] if preview["lines"] else []), (preview, listed)
    return preview, changed.json()


def compute_rest(line: Any, fee: int) -> int:
    """Return the share of a monthly fee for the rest of the month."""
    start, end = (datetime.fromisoformat(line[name]) for name in ("start", "end"))
    month = period_at(start.timestamp(), None)
    return nearest(fee * Fraction(int((end - start).total_seconds()), month.end - month.start), "usd")


def test_more_seats_are_prorated_and_fewer_start_next_month(charging: Collector) -> None:
    token, begun = subscribe(charging, plan="crew", quantity=3)
    assert (begun["quantity"], begun["next_quantity"]) == (3, None)
    preview, changed = preview_and_change(charging, token, plan="crew", quantity=5)
    unused, rest = preview["lines"]
    assert (unused["quantity"], unused["amount"]) == (-3, -compute_rest(unused, 3000))
    assert (rest["quantity"], rest["amount"], changed["quantity"]) == (5, compute_rest(rest, 5000), 5)
    assert rest["text"].startswith("Remaining time of 5 × Crew")
    refused = call(
        charging, "PUT", "/billing/subscription", {"plan": "crew", "quantity": 1, "when": "now"}, token=token
    )
    assert refused.status == 422, refused
    preview, changed = preview_and_change(charging, token, plan="crew", quantity=1)
    assert (preview["when"], changed["quantity"], changed["next_quantity"]) == ("period_end", 5, 1)
    upcoming = call(charging, "GET", "/billing/invoices/upcoming", token=token).json()
    assert [(line["quantity"], line["amount"]) for line in upcoming["lines"]] == [(1, 1000)]
    _, changed = preview_and_change(charging, token, plan="crew", quantity=5)
    assert (changed["quantity"], changed["next_plan"], changed["next_quantity"]) == (5, None, None), (
        "the pending change is canceled"
    )
    _, changed = preview_and_change(charging, token, plan="standard")
    assert (changed["plan"], changed["quantity"]) == ("standard@1", 1), "standard has no quantity"


def test_commands_change_a_quantity_like_the_api(charging: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    name = customer(charging)
    environ = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{charging.port}", "EDGEPROXY_TOKEN": ADMIN}

    def connect(address: tuple[str, int], timeout: float, _: object) -> socket.socket:
        return create_connection(address, timeout, (next(ADDRESSES), 0))

    create_connection = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", connect)

    def run(line: str, code: int = 0) -> Any:
        words = ["subscriptions", *line.format(name).split()]
        result = CliRunner().invoke(cli.app, words, env=environ)
        assert result.exit_code == code, result.output
        return json.loads(result.output) if "--json" in line else result.output

    assert "2 × Crew" in run("add {} crew --quantity 2 --dry-run"), "a preview"
    run("show {}", 1)
    assert run("add {} crew --quantity 2 --json")["quantity"] == 2
    terms = {"plan": "crew", "quantity": 7}
    path = f"/billing/subscription/preview?customer={name}"
    preview = run("change {} --quantity 7 --dry-run --json")
    assert (preview, preview["when"]) == (call(charging, "POST", path, terms).json(), "now")
    assert "withdrawn" not in run("change {} --quantity 7 --dry-run"), "nothing waits"
    assert run("show {} --json")["quantity"] == 2
    assert run("change {} --quantity 7 --json")["quantity"] == 7
    for line in ("change {} --quantity 5", "end {} --reason unused"):
        waiting = run(f"{line} --json")
        assert (waiting["quantity"], waiting["plan"]) == (7, "crew@1")
        assert waiting["next_quantity"] == 5 or waiting["cancel_at"], waiting
        kept = run("keep {} --json")
        assert (kept["next_plan"], kept["next_quantity"], kept["cancel_at"], kept["quantity"]) == (None, None, None, 7)
    assert "has 20 × crew@1 at most" in run("change {} --quantity 21", 1)


def test_each_plan_change_in_a_period_has_one_invoice(charging: Collector) -> None:
    token, _ = subscribe(charging, plan="crew", quantity=2)
    _, changed = preview_and_change(charging, token, plan="standard")
    assert changed["plan"] == "standard@1"
    preview, changed = preview_and_change(charging, token, plan="enterprise")
    amounts_due = [(line["plan"], line["amount"]) for line in preview["lines"]]
    first, second = preview["lines"]
    assert amounts_due == [("standard@1", -compute_rest(first, 9900)), ("enterprise@1", compute_rest(second, 49900))]
    _, changed = preview_and_change(charging, token, plan="standard")
    assert (changed["plan"], changed["next_plan"]) == ("enterprise@1", "standard@1")
    _, changed = preview_and_change(charging, token, plan="enterprise")
    assert changed["next_plan"] is None


@pytest.mark.parametrize(
    ("method", "path", "terms"),
    [
        ("PUT", "", {"plan": "enterprise"}),
        ("PUT", "", {"plan": "crew", "interval": "year", "quantity": 9}),
        ("PUT", "", {"plan": "crew", "quantity": 2}),
        ("PUT", "", {"plan": "free"}),
        ("PUT", "", {"plan": "crew"}),
        ("POST", "/upgrade?tier=enterprise", None),
        ("DELETE", "?when=period_end", None),
        ("DELETE", "?when=now", None),
        ("POST", "/subscription/cancel", {"when": "period_end"}),
    ],
)
def test_change_names_the_waiting_change_that_it_withdraws(
    charging: Collector, method: str, path: str, terms: Any
) -> None:
    token, _ = subscribe(charging, plan="crew", quantity=5)
    waiting = {"plan": "crew@1", "interval": None, "quantity": 3}
    less = {"plan": "crew", "quantity": 3}
    for _ in range(2):  # The same change again withdraws nothing.
        preview, changed = preview_and_change(charging, token, **less)
        assert (preview["withdrawn"], changed["next_quantity"]) == (None, 3)
    if method == "PUT":
        _, answer = preview_and_change(charging, token, **terms)
    else:
        whole = path if path.startswith("/") else f"/subscription{path}"
        answer = call(charging, method, f"/billing{whole}", terms, token=token).json()
    assert answer["withdrawn"] == waiting
    assert answer["next_quantity"] != 3


def test_yearly_billing_starts_at_once_and_monthly_after_the_year(charging: Collector) -> None:
    token, begun = subscribe(charging, plan="crew", quantity=2)
    assert begun["interval"] == "month"
    preview, changed = preview_and_change(charging, token, plan="crew", interval="year")
    unused, year = preview["lines"]
    assert (changed["interval"], changed["quantity"], unused["amount"]) == ("year", 2, -compute_rest(unused, 2000))
    start, end = (datetime.fromisoformat(year[name]) for name in ("start", "end"))
    whole = (end - datetime.fromisoformat(changed["period_start"])).total_seconds()
    share = Fraction(int((end - start).total_seconds()), int(whole))
    assert (year["quantity"], year["amount"]) == (2, nearest(2 * 12 * 900 * share, "usd"))
    _, changed = preview_and_change(charging, token, plan="crew", interval="month")
    assert (changed["interval"], changed["next_interval"]) == ("year", "month")
    _, changed = preview_and_change(charging, token, plan="crew", interval="year")
    assert (changed["interval"], changed["next_interval"]) == ("year", None)


def test_preview_of_a_resumed_subscription_includes_its_coupon(charging: Collector) -> None:
    token, _ = subscribe(charging, plan="crew", quantity=2)
    assert call(charging, "DELETE", "/billing/subscription?when=now", token=token).status == 200
    preview, again = preview_and_change(charging, token, "POST", plan="crew", quantity=5, coupon="HALF")
    assert [line["kind"] for line in preview["lines"]] == ["proration", "proration", "discount"]
    assert again["quantity"] == 5
    refused = call(charging, "POST", "/billing/subscription/preview", {"plan": "crew", "coupon": "HALF"}, token=token)
    assert refused.status == 409, refused


def test_ended_subscription_resumes_within_its_period(charging: Collector) -> None:
    token, begun = subscribe(charging, plan="crew", quantity=4)
    assert call(charging, "DELETE", "/billing/subscription?when=now", token=token).status == 200
    assert call(charging, "GET", "/billing/subscription", token=token).status == 404
    preview, again = preview_and_change(charging, token, "POST", plan="crew", quantity=4)
    assert (preview["due_now"], preview["lines"]) == (0, []), "the month is paid"
    assert (again["id"], again["quantity"], again["cancel_at"]) == (begun["id"], 4, None)
    preview, changed = preview_and_change(charging, token, plan="crew", quantity=6)
    unused, rest = preview["lines"]
    assert preview["due_now"] == compute_rest(rest, 6000) - compute_rest(unused, 4000)
    assert changed["quantity"] == 6
