"""Documented differences between the sandbox and Stripe, and the page that lists them.

A difference is a behaviour that Stripe does not document, or that the sandbox does otherwise. Each row of the page's
table is a `difference` of a test that shows it. This file has the rows that no other test is about.
"""

import calendar
from typing import Any
from urllib.parse import urlencode

import pytest

from loadtest.testbed.http_client import ask
from tests.support.stripe_sandbox import Sandbox

JANUARY, FEBRUARY, MARCH, APRIL = (calendar.timegm((2027, month, 1, 0, 0, 0)) for month in (1, 2, 3, 4))
DAY, HOUR = 86400, 3600
CARD = {"payment_method": "pm_card_visa", "invoice_settings[default_payment_method]": "pm_card_visa"}
DECLINES = "pm_card_chargeCustomerFail"


class Shop:
    """The calls of a sandbox for one customer on a test clock."""

    def __init__(self, sandbox: Sandbox, **customer: str) -> None:
        self.sandbox = sandbox
        self.clock = self.post("test_helpers/test_clocks", frozen_time=JANUARY)["id"]
        self.customer = self.post("customers", email="a@example.com", test_clock=self.clock, **(customer or CARD))["id"]

    def post(self, path: str, **form: Any) -> Any:
        """Return the answer to a POST, which must succeed."""
        answer = self.sandbox.call("POST", f"/v1/{path}", urlencode(form))
        assert answer.status == 200, answer
        return answer.json()

    def get(self, path: str) -> Any:
        """Return an object."""
        return self.sandbox.call("GET", f"/v1/{path}").json()

    def price(self, cents: int, interval: str = "month") -> str:
        """Create a product with a price, and return the price."""
        form = {"currency": "usd", "unit_amount": cents, "recurring[interval]": interval, "product_data[name]": "P"}
        return str(self.post("prices", **form)["id"])

    def subscribe(self, *prices: str, **form: Any) -> Any:
        """Create a subscription of the customer."""
        items = {f"items[{number}][price]": price for number, price in enumerate(prices)}
        return self.post("subscriptions", customer=self.customer, **items, **form)

    def advance(self, to: int) -> None:
        """Advance the test clock and wait until all due work is done."""
        self.post(f"test_helpers/test_clocks/{self.clock}/advance", frozen_time=to)
        while self.get(f"test_helpers/test_clocks/{self.clock}")["status"] != "ready":
            pass

    def invoices(self) -> list[Any]:
        """Return the customer's invoices, oldest first."""
        return list(reversed(self.get(f"invoices?customer={self.customer}")["data"]))


@pytest.mark.difference("half a cent below zero", "rounds away from zero, as above it")
@pytest.mark.difference("amounts of invoice items", "`amount` allows no `quantity` but 1")
@pytest.mark.difference(
    "deleting a draft", "deletes items that were made for it; those that were pending are pending again"
)
@pytest.mark.difference(
    "lines that are added together (`add_lines`)", "all or none; each has an item behind it, with its metadata"
)
def test_items_of_an_invoice(stripe_sandbox: Sandbox) -> None:
    shop = Shop(stripe_sandbox)
    item = {"customer": shop.customer, "currency": "usd"}
    halves = {
        cents: shop.post("invoiceitems", **item, unit_amount_decimal=cents, quantity=3) for cents in ("-0.5", "0.5")
    }
    assert [half["amount"] for half in halves.values()] == [-2, 2]
    refused = stripe_sandbox.call("POST", "/v1/invoiceitems", urlencode({**item, "amount": 5, "quantity": 2}))
    assert (refused.status, refused.json()["error"]["param"]) == (400, "quantity")
    draft = shop.post("invoices", customer=shop.customer, pending_invoice_items_behavior="include")
    own = shop.post("invoiceitems", **item, amount=700, invoice=draft["id"])["id"]
    lines = {"lines[0][amount]": 100, "lines[0][metadata][n]": "1", "lines[1][amount]": 5, "lines[1][quantity]": 2}
    assert stripe_sandbox.call("POST", f"/v1/invoices/{draft['id']}/add_lines", urlencode(lines)).status == 400
    assert shop.get(f"invoices/{draft['id']}")["total"] == 700
    assert stripe_sandbox.call("DELETE", f"/v1/invoices/{draft['id']}").status == 200
    assert stripe_sandbox.call("GET", f"/v1/invoiceitems/{own}").status == 404
    pending = shop.get(f"invoiceitems?customer={shop.customer}&pending=true")["data"]
    assert {one["id"] for one in pending} == {half["id"] for half in halves.values()}


@pytest.mark.difference(
    "an invoice below 50 cents", "is paid, also one that is sent; the customer owes the amount from then on"
)
@pytest.mark.difference("an open invoice of which a credit note leaves less than 50 cents", "cannot be charged")
def test_an_amount_that_is_too_small_to_charge(stripe_sandbox: Sandbox) -> None:
    shop = Shop(stripe_sandbox)

    def finalize(amount: int, **more: object) -> dict[str, Any]:
        draft = shop.post("invoices", customer=shop.customer, **more)["id"]
        shop.post("invoiceitems", customer=shop.customer, currency="usd", amount=amount, invoice=draft)
        return dict(shop.post(f"invoices/{draft}/finalize"))

    small = finalize(20)
    assert (small["status"], small["total"], small["amount_paid"]) == ("paid", 20, 0)
    assert finalize(29, collection_method="send_invoice", days_until_due=1)["status"] == "paid"
    assert shop.get(f"customers/{shop.customer}")["balance"] == 49
    large = finalize(30)
    assert (large["status"], large["amount_due"]) == ("open", 79)
    shop.post("credit_notes", invoice=large["id"], amount=30)
    refused = stripe_sandbox.call("POST", f"/v1/invoices/{large['id']}/pay", "payment_method=pm_card_visa")
    assert (refused.status, refused.json()["error"]["code"]) == (400, "amount_too_small")


@pytest.mark.difference("items of two intervals", "each has its own period, counted from the subscription's anchor")
@pytest.mark.difference("the summary of a span without events", "is not listed")
def test_periods_of_items_and_spans_without_events(stripe_sandbox: Sandbox) -> None:
    shop = Shop(stripe_sandbox)
    created = shop.subscribe(shop.price(1000), shop.price(9000, "year"))
    periods = [(one["current_period_start"], one["current_period_end"]) for one in created["items"]["data"]]
    assert sorted(periods) == [(JANUARY, FEBRUARY), (JANUARY, calendar.timegm((2028, 1, 1, 0, 0, 0)))]
    shop.advance(FEBRUARY + 2 * HOUR)
    assert [invoice["total"] for invoice in shop.invoices()] == [10_000, 1000]
    meter = {"display_name": "M", "event_name": "spans", "default_aggregation[formula]": "sum"}
    path = f"billing/meters/{shop.post('billing/meters', **meter)['id']}/event_summaries"
    query = f"customer={shop.customer}&start_time={JANUARY}&end_time={JANUARY + 2 * HOUR}&value_grouping_window=hour"
    assert shop.get(f"{path}?{query}")["data"] == []


@pytest.mark.difference(
    "payments that fail", "are tried again 3, 5 and 7 days after the time before; then the subscription ends"
)
@pytest.mark.difference(
    "an endpoint that does not take `invoice.created`", "does not hold the draft up; Stripe waits for it up to 72 hours"
)
def test_payments_that_fail_and_endpoints_that_do_not_answer(own_sandbox: Sandbox) -> None:
    shop = Shop(own_sandbox)
    own_sandbox.listen("http://127.0.0.1:9/nobody")
    created = shop.subscribe(shop.price(1000))
    shop.post(f"customers/{shop.customer}", **{"invoice_settings[default_payment_method]": DECLINES})
    shop.advance(FEBRUARY + HOUR)
    attempts = []
    for days in (0, 3, 5, 7):  # Each interval starts at the previous one.
        shop.advance(FEBRUARY + 2 * HOUR + (days + sum(attempts)) * DAY)
        attempts.append(days)
        assert shop.invoices()[-1]["attempt_count"] == len(attempts)
    assert shop.get(f"subscriptions/{created['id']}")["status"] == "canceled"


@pytest.mark.difference("invoices while `pause_collection` is `void` or `mark_uncollectible`", "have no hour as drafts")
@pytest.mark.parametrize(("behavior", "status"), [("void", "void"), ("mark_uncollectible", "uncollectible")])
def test_invoice_of_a_paused_collection_has_its_behaviors_status(
    stripe_sandbox: Sandbox, behavior: str, status: str
) -> None:
    shop = Shop(stripe_sandbox)
    created = shop.subscribe(shop.price(1000))
    shop.post(f"subscriptions/{created['id']}", **{"pause_collection[behavior]": behavior})
    shop.advance(FEBRUARY + 1)
    assert [invoice["status"] for invoice in shop.invoices()] == ["paid", status]


@pytest.mark.difference("the first invoice of a schedule", "is finalized in an hour")
@pytest.mark.difference("items of a phase", "those with a price of the phase before stay, the others are new")
def test_phases_of_a_schedule(stripe_sandbox: Sandbox) -> None:
    shop = Shop(stripe_sandbox)
    stays, goes, comes = (shop.price(cents) for cents in (1000, 2000, 3000))
    month = "[duration][interval]"
    created = shop.post(
        "subscription_schedules",
        customer=shop.customer,
        start_date=JANUARY + DAY,
        **{"phases[0][items][0][price]": stays, "phases[0][items][1][price]": goes, f"phases[0]{month}": "month"},
        **{"phases[1][items][0][price]": stays, "phases[1][items][1][price]": comes, f"phases[1]{month}": "month"},
    )

    def items() -> dict[str, str]:
        subscription = shop.get(f"subscription_schedules/{created['id']}")["subscription"]
        return {one["price"]["id"]: one["id"] for one in shop.get(f"subscriptions/{subscription}")["items"]["data"]}

    shop.advance(JANUARY + DAY + 60)
    assert [invoice["status"] for invoice in shop.invoices()] == ["draft"]
    shop.advance(JANUARY + DAY + HOUR)
    assert [invoice["status"] for invoice in shop.invoices()] == ["paid"]
    before = items()
    shop.advance(FEBRUARY + DAY + 60)
    after = items()
    assert (after.keys(), after[stays]) == ({stays, comes}, before[stays])
    assert after[comes] not in before.values()


@pytest.mark.difference(
    "a coupon for one invoice (`once`) in a trial", "waits for the first invoice that it takes something off"
)
def test_a_coupon_for_one_invoice_in_a_trial(stripe_sandbox: Sandbox) -> None:
    shop = Shop(stripe_sandbox)
    coupon = shop.post("coupons", percent_off=50, duration="once")["id"]
    shop.subscribe(shop.price(1000), trial_period_days=5, **{"discounts[0][coupon]": coupon})
    shop.advance(MARCH)
    assert [invoice["total"] for invoice in shop.invoices()] == [0, 500, 1000]


@pytest.mark.difference("a card that pays on the page of an invoice", "is used once, and saved for no customer")
@pytest.mark.difference("a card that pays in Checkout", "is saved for the customer, if there is one")
def test_cards_that_pay_on_pages(stripe_sandbox: Sandbox) -> None:
    shop = Shop(stripe_sandbox, name="without a card")

    def cards() -> int:
        return len(shop.get(f"payment_methods?customer={shop.customer}&type=card")["data"])

    def pay(page: str) -> None:
        form = {"number": "4242 4242 4242 4242", "expiry": "12/40", "cvc": "123"}
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        path = f"/_sandbox/{page}/pay"
        assert ask(stripe_sandbox.port, path, method="POST", fields=fields, body=urlencode(form).encode()).status == 303

    draft = shop.post("invoices", customer=shop.customer)["id"]
    shop.post("invoiceitems", customer=shop.customer, currency="usd", amount=700, invoice=draft)
    shop.post(f"invoices/{draft}/finalize")
    pay(f"invoices/{draft}")
    assert (shop.get(f"invoices/{draft}")["status"], cards()) == ("paid", 0)
    price = {"currency": "usd", "unit_amount": 500, "product_data][name": "T"}
    session = shop.post(
        "checkout/sessions",
        mode="payment",
        customer=shop.customer,
        success_url="https://shop.example/ok",
        **{"line_items[0][quantity]": 1, **{f"line_items[0][price_data][{name}]": one for name, one in price.items()}},
    )
    pay(f"checkout/{session['id']}")
    assert cards() == 1


@pytest.mark.difference(
    "searches", "find what is new at once, unless the fault `search_lag` says otherwise; Stripe's may take a minute"
)
def test_search_lag_hides_new_customers(own_sandbox: Sandbox) -> None:
    def found(name: str) -> int:
        own_sandbox.call("POST", "/v1/customers", f"name={name}")
        return len(own_sandbox.call("GET", f"/v1/customers/search?query=name:%22{name}%22").json()["data"])

    assert found("Ada") == 1
    own_sandbox.faults({"kind": "search_lag", "seconds": 60})
    assert found("Bob") == 0
