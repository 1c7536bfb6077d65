"""The portal's computations for a customer: amounts owed, usage of included units, losses by a plan change."""

from itertools import count
from typing import Any

import pytest

from edgeproxy.collector.languages.reader import choose_reader
from edgeproxy.collector.pages.alert_groups import group_alerts
from edgeproxy.collector.pages.home import compute_bars, split_invoice
from edgeproxy.collector.pages.invoice_status import compute_overdue_days, find_owed, find_pay_url
from edgeproxy.collector.pages.invoices import to_line_rows
from edgeproxy.collector.pages.plan_losses import Loss, find_losses
from edgeproxy.collector.pages.usage import MeterCost
from edgeproxy.config.tiers import Tier

DAY = 86400
NOW = 1_800_000_000  # 2027-01-15 08:00
STRIPE = "https://api.stripe.com"
PAGE = "https://invoice.stripe.com/i/1"


def invoice(**fields: Any) -> Any:
    whole = {"id": "1", "state": "open", "amount_due": 100, "currency": "usd", "due_at": "2027-01-15T08:00:00.000Z"}
    return {**whole, "url": PAGE, **fields}


def test_open_invoice_is_overdue_after_a_whole_day() -> None:
    assert [compute_overdue_days(invoice(), NOW + late) for late in (-DAY, DAY - 1, DAY, 21 * DAY)] == [0, 0, 1, 21]
    assert compute_overdue_days(invoice(state="paid"), NOW + 9 * DAY) == 0
    assert compute_overdue_days(invoice(due_at=None), NOW + 9 * DAY) == 0


def test_owed_invoices_are_open_and_unpaid_with_the_oldest_first() -> None:
    older = invoice(id="2", due_at="2027-01-01T08:00:00.000Z", amount_due=40)
    settled = [invoice(state="paid"), invoice(amount_due=0), invoice(state="uncollectible"), invoice(state="draft")]
    owed = find_owed([invoice(currency="eur"), older, *settled], NOW, STRIPE)
    assert [(owed_invoice.invoice["id"], owed_invoice.days, owed_invoice.pay_url) for owed_invoice in owed] == [
        ("2", 14, PAGE),
        ("1", 0, PAGE),
    ]


def test_an_invoice_is_due_from_its_due_date_on() -> None:
    later = invoice(id="later", due_at="2027-01-15T08:00:01.000Z")
    owed = find_owed([later, invoice(id="now"), invoice(id="undated", due_at=None)], NOW, STRIPE)
    assert [(owed_invoice.invoice["id"], owed_invoice.is_due) for owed_invoice in owed] == [
        ("undated", True),
        ("now", True),
        ("later", False),
    ]


@pytest.mark.parametrize(
    "url", [None, "javascript:alert(1)", "http://invoice.example/1", f"{STRIPE}.evil.example/1"[8:]]
)
def test_pay_link_is_https_or_the_sandbox(url: str | None) -> None:
    assert find_pay_url(invoice(url=url), STRIPE) is None
    assert find_pay_url(invoice(url="http://127.0.0.1:9/p/1"), "http://127.0.0.1:9") == "http://127.0.0.1:9/p/1"
    assert find_pay_url(invoice(url="http://127.0.0.1:99/p/1"), "http://127.0.0.1:9") is None


def test_bars_show_the_fullest_meters_and_their_overage() -> None:
    meters: Any = [
        {"meter": "tokens", "quantity": 1500, "included": 1000, "overage": 500, "cap": "soft"},
        {"meter": "calls", "quantity": 5, "included": None, "overage": 0, "cap": None},
        {"meter": "runs", "quantity": 1, "included": 10, "overage": 0, "cap": None},
        {"meter": "requests", "quantity": 9, "included": 10, "overage": 0, "cap": None},
    ]
    ahead = {"projected": {"days": 7, "low": 25, "high": 30}, "timezone": "UTC", "resets": "2027-01-02T00:00:00Z"}
    day = {"quota": "requests-day", "kind": "quota", "meter": "requests", "per": "day", **ahead}
    quotas: Any = [{**day, "limit": 20, "used": 20, "cap": "hard"}]
    costs = [MeterCost("tokens", 1500, 5, 2000, 10, 2500, 15)]
    bars = [(bar.meter, bar.part, bar.state, bar.per, bar.ahead) for bar in compute_bars(meters, quotas, costs)]
    assert bars == [
        ("tokens", 1.0, "warn", None, (2000, 2500)),
        ("requests", 1.0, "bad", "day", (25, 30)),
        ("requests", 0.9, "warn", None, None),
        ("runs", 0.1, "", None, None),
    ]


@pytest.mark.parametrize(("used", "bar"), [(9, (9, 10, "warn")), (10, (10, 12, "warn")), (12, (12, 12, "bad"))])
def test_included_units_and_their_grace_have_one_bar(used: int, bar: tuple[int, int, str]) -> None:
    meters: Any = [{"meter": "calls", "quantity": used, "included": 10, "overage": 0, "cap": "soft"}]
    month = {"quota": "calls-month", "kind": "plan", "meter": "calls", "per": "month", "timezone": "UTC"}
    caps = {**month, "projected": None, "resets": None, "used": used}
    quotas: Any = [{**caps, "limit": 10, "cap": "soft"}, {**caps, "limit": 12, "cap": "hard"}]
    assert [(one.used, one.included, one.state) for one in compute_bars(meters, quotas)] == [bar]


def test_next_invoice_separates_usage_from_the_next_fee() -> None:
    def line(kind: str, amount: int, start: str, end: str) -> Any:
        return {"kind": kind, "amount": amount, "start": f"{start}T00:00:00.000Z", "end": f"{end}T00:00:00.000Z"}

    month = ("2026-11-01", "2026-12-01")
    lines = [line("usage", 326, *month), line("fee", 9900, "2026-12-01", "2027-01-01"), line("discount", -26, *month)]
    span = {"usage_start": "2026-11-05T15:31:00.000Z", "period_end": "2026-12-01T00:00:00.000Z"}
    parts = split_invoice({**span, "lines": lines, "total": 10_200})
    assert (parts.used, parts.ahead, parts.others) == (326, 9900, -26)
    assert [choose_reader("en", None).short_day(at) for at in (parts.since, parts.start, parts.end)] == [
        "Nov 5",
        "Dec 1",
        "Jan 1",
    ]


def test_thresholds_of_one_subject_and_period_are_grouped() -> None:
    numbers = count(1)

    def alert(kind: str, threshold: int, **details: object) -> Any:
        name = "amount_cents" if kind == "spend_reached" else "threshold"
        handling = {"acknowledged_at": "2026-11-02" if threshold == 50 else None}
        about = {name: threshold, "quota": "calls-month", "since": "2026-11-01", **details}
        severity = "info" if threshold == 9000 else "warn"
        about = {"customer": "acme", "severity": severity, "details": about, "handling": handling}
        return {"id": next(numbers), "kind": kind, **about}

    listed = [
        alert("quota_reached", 80),
        alert("quota_reached", 120),
        alert("payment_failed", 0),
        alert("quota_reached", 50),
        alert("quota_reached", 80, since="2026-10-01"),
        alert("key_budget_reached", 80, key="k1", resets="2026-12-01"),
        alert("key_budget_reached", 100, key="k2", resets="2026-12-01"),
        alert("spend_reached", 9000, period_start="2026-11-01", currency="usd"),
        alert("spend_reached", 500, period_start="2026-11-01", currency="usd"),
    ]
    groups = group_alerts(listed)
    assert [[one["id"] for one in (group.alert, *group.earlier)] for group in groups] == [
        *([2, 1, 4], [3], [5], [6], [7], [8, 9]),
    ], "a line stands where its highest threshold stood"
    assert groups[0].waiting == ["2", "1"], "without what is acknowledged"
    assert groups[-1].waiting == ["9"], "without what is mere information"


def test_smaller_plan_lists_losses_with_breaking_ones_first() -> None:
    tiers = {
        "large": Tier.model_validate(
            {"limits": [{"rate": "600/min", "name": "minute"}], "concurrency": 50, "analytics": "90d"}
        ),
        "small": Tier.model_validate(
            {
                "limits": [{"rate": "60/min", "name": "small"}],
                "concurrency": 50,
                "analytics": "7d",
                "quotas": [{"meter": "seats", "per": "month", "included": 3, "cap": "hard"}],
            }
        ),
    }
    large: Any = {
        "tier": "large",
        "meters": {
            "tokens": {"included": 1000, "cap": None, "price": "1", "package": 1000},
            "calls": {"included": None, "cap": None},
        },
        "entitlements": {"support": "mail", "projects": "10", "sso": "yes"},
    }
    small: Any = {
        "tier": "small",
        "meters": {
            "tokens": {"included": 1000, "cap": None, "price": "0.002"},
            "calls": {"included": 10, "cap": "hard"},
        },
        "entitlements": {"support": "forum", "projects": "3"},
    }
    losses = find_losses(large, small, tiers, {"calls": 11, "tokens": 5000, "seats": 3})
    assert losses == [
        Loss("included", "calls", None, 10, 11, breaks=True),
        Loss("price", "tokens", ("1", 1000), ("0.002", 1)),
        Loss("rate", "small", 600, 60, span=60.0),
        Loss("quota", "seats", None, 3, None, breaks=False),
        Loss("history", "", 90, 7),
        Loss("feature", "projects", "10", "3"),
        Loss("feature", "sso", "yes", None),
    ]
    assert find_losses(small, large, tiers, {"calls": 11}) == [], "with more nothing is lost, but for other words"


@pytest.mark.parametrize(
    ("written", "package", "shown"),
    [
        ("10", 1, {"en": ("$0.10", 1), "de": ("0,10 $", 1), "nl": ("$ 0,10", 1)}),
        ("0.001", 1, {"en": ("$0.01", 1000), "de": ("0,01 $", 1000), "nl": ("$ 0,01", 1000)}),
        ("0.0000015", 1, {"en": ("$0.015", 1_000_000), "de": ("0,015 $", 1_000_000), "nl": ("$ 0,015", 1_000_000)}),
        ("500", 5000, {"en": ("$5.00", 5000), "de": ("5,00 $", 5000), "nl": ("$ 5,00", 5000)}),
        ("0", 1, {"en": ("$0.00", 1), "de": ("0,00 $", 1), "nl": ("$ 0,00", 1)}),
    ],
)
def test_a_price_is_of_as_many_units_as_can_be_read(written: str, package: int, shown: dict[str, Any]) -> None:
    for language, expected in shown.items():
        amount, units = choose_reader(language, None).unit_price(written, package)
        assert (amount.replace("\xa0", " ").replace("US$", "$"), units) == expected


@pytest.mark.parametrize(
    ("written", "currency", "shown"),
    [
        ("0.123456789012", "usd", {"en": ("$1.23456789012", 1000), "de": ("1,23456789012 $", 1000)}),
        ("0.000000000001", "usd", {"en": ("$0.00000001", 1_000_000), "de": ("0,00000001 $", 1_000_000)}),
        ("1", "jpy", {"en": ("¥1", 1), "de": ("1 ¥", 1), "nl": ("JP¥ 1", 1)}),
        ("1.5", "kwd", {"en": ("KWD 0.0015", 1), "de": ("0,0015 KWD", 1), "nl": ("KWD 0,0015", 1)}),
        ("0.0001", "bhd", {"en": ("BHD 0.100", 1_000_000), "nl": ("BHD 0,100", 1_000_000)}),
        ("100000000000", "usd", {"en": ("$1,000,000,000.00", 1), "de": ("1.000.000.000,00 $", 1)}),
    ],
)
def test_unit_price_loses_no_decimal_place(written: str, currency: str, shown: dict[str, Any]) -> None:
    for language, expected in shown.items():
        amount, units = choose_reader(language, None).unit_price(written, currency=currency)
        assert (amount.replace("\xa0", " "), units) == expected


def test_invoice_line_rows_keep_their_text() -> None:
    line = {"text": "=HYPERLINK(1)", "kind": "usage", "meter": "calls", "value": "@x", "start": None, "end": None}
    bill = {"id": "i", "number": None, "currency": "jpy", "lines": [{**line, "quantity": 3, "amount": 150}]}
    head, row = to_line_rows(bill)
    assert head[-1] == "amount"
    assert row == ("i", "=HYPERLINK(1)", "usage", "calls", "@x", "", "", "3", "jpy", "150")
