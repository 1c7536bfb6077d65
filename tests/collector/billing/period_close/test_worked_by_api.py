"""The rows "late" and "change" of the worked table, over the API of a real collector with a moved clock."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.regions import clocks
from loadtest.testbed.collector import COMMAND, SERVICE, Collector
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.collector.api.test_billing import METERS, WORKED, call, customer, states
from tests.support.second_rater import fee, nearest, usage_charges
from tests.support.stripe_sandbox import KEY, Sandbox

PLANS = yaml.safe_load((ROOT / "loadtest/testbed/plans.yaml").read_text())["plans"]
STANDARD, ENTERPRISE = PLANS["standard@1"], PLANS["enterprise@1"]
JANUARY, NOON, FEBRUARY = (datetime(2027, *day, tzinfo=UTC) for day in ((1, 1), (1, 16, 12), (2, 1)))
LAST_DAY = "2027-01-31T12:00:00Z"
To = Callable[[datetime], None]


@pytest.fixture
def charging(tmp_path: Path, own_sandbox: Sandbox) -> Iterator[tuple[Collector, To]]:
    """A collector that charges every customer, and a function that sets its clock and the sandbox's."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    stripe = {"base": own_sandbox.url, "key": str(tmp_path / "key")}
    billing = {"plans": str(ROOT / "loadtest/testbed/plans.yaml"), "mode": "live", "stripe": stripe}
    meters = {"requests": {"count": "requests"}, **{name: {"count": "events"} for name in METERS}}
    collector = Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db", billing=billing, meters=meters)
    clock = tmp_path / "clock"
    environ = {name: value for name, value in clocks.ahead(0.0).items() if name != "FAKETIME"}
    environ |= {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    collector.command = ("/usr/bin/env", *(f"{name}={value}" for name, value in environ.items()), *COMMAND)
    passed = 0.0

    def to(moment: datetime) -> None:
        nonlocal passed
        seconds = (moment - datetime.now(UTC)).total_seconds()
        own_sandbox.advance(seconds - passed)
        passed = seconds
        clock.write_text(f"{seconds:+.0f}s\n")
        if collector.process is not None:  # libfaketime reads the file within a second.
            until(lambda: abs(its_time(collector) - moment).total_seconds() < 60, "the collector's clock has moved")

    to(JANUARY)
    with closing(collector):
        collector.begin()
        until(collector.ready, "the collector is ready", seconds=120.0)
        yield collector, to


def its_time(collector: Collector) -> datetime:
    return parsedate_to_datetime(call(collector, "GET", "/billing/status")["date"])


def use(collector: Collector, name: str, used: dict[str, int], at: str | None = None) -> None:
    events = [
        {
            "source": "test",
            "id": f"{name}-{meter}-{value}",
            "customer": name,
            "meter": meter,
            "value": value,
            "time": at,
        }
        for meter, value in used.items()
    ]
    taken = call(collector, "POST", "/v1/events", events, token=SERVICE)
    assert (taken.status, taken.json()["rejected"]) == (202, []), taken


def cents(plan: dict[str, Any], used: dict[str, int]) -> dict[str, int]:
    """Return the second rater's amount of each meter with a cost."""
    amounts: dict[str, int] = {}
    for (meter, _, _), (_, amount) in usage_charges(plan, {meter: {"": n} for meter, n in used.items()}).items():
        amounts[meter] = amounts.get(meter, 0) + amount
    return {meter: amount for meter, amount in amounts.items() if amount}


@pytest.mark.soak
@pytest.mark.timeout(300)  # Each clock change causes the work of a month.
@pytest.mark.skipif(clocks.LIBRARY is None, reason="there is no libfaketime on this machine")
def test_late_usage_and_a_plan_change_are_charged_to_the_cent(charging: tuple[Collector, To]) -> None:
    collector, to = charging
    late, grows = customer(collector), customer(collector)

    def invoices(name: str, count: int) -> dict[str, dict[str, Any]]:
        """Wait until `count` invoices of a customer are open at Stripe, and return all."""
        until(lambda: states(collector, name) == ["open"] * count, f"{count} invoices of {name} are sent")
        listed = call(collector, "GET", f"/billing/invoices?customer={name}").json()["invoices"]
        whole = [call(collector, "GET", f"/billing/invoices/{invoice['id']}").json() for invoice in listed]
        return {f"{one['period']} {one['kind']}": one for one in whole}

    def month(month: int) -> dict[str, dict[str, Any]]:
        """Advance past the end of a month, and return the invoices of the customer with late usage."""
        to(datetime(2027, month, 3, tzinfo=UTC))
        return invoices(late, month)

    for name in (late, grows):
        path = f"/billing/subscription?customer={name}"
        assert call(collector, "POST", path, {"plan": "standard"}).status == 201
    assert [invoice["total"] for invoice in invoices(grows, 1).values()] == [fee(STANDARD, seconds=1, of=1)]
    use(collector, grows, {"llm_tokens": 1_000_500}, "2027-01-01T00:00:00Z")
    use(collector, late, WORKED)

    to(NOON)
    changed = call(collector, "PUT", f"/billing/subscription?customer={grows}", {"plan": "enterprise"})
    assert (changed.status, changed.json()["plan"]) == (200, "enterprise@1")
    use(collector, grows, {"llm_tokens": 10_000_200}, "2027-01-16T12:01:00Z")
    change = invoices(grows, 2)["2027-01-01 change"]
    left, whole = int((FEBRUARY - NOON).total_seconds()), int((FEBRUARY - JANUARY).total_seconds())
    expected = [-nearest(fee(STANDARD, seconds=left, of=whole), "usd"), fee(ENTERPRISE, seconds=left, of=whole)]
    assert [line["amount"] for line in change["lines"]] == expected == [-4950, 24950]
    assert [(line["start"], line["end"]) for line in change["lines"]] == [
        ("2027-01-16T12:00:00.000Z", "2027-02-01T00:00:00.000Z")
    ] * 2

    first = month(2)["2027-01-01 period"]
    amounts = {line["meter"]: line["amount"] for line in first["lines"] if line["amount"]}
    assert amounts == {None: 9900, **cents(STANDARD, WORKED)}
    assert first["total"] == 11767
    period = invoices(grows, 3)["2027-01-01 period"]
    by_plan = {(line["plan"], line["meter"]): line["amount"] for line in period["lines"] if line["tier"]}
    assert by_plan == {("standard@1", "llm_tokens"): 1, ("enterprise@1", "llm_tokens"): 0}
    assert cents(STANDARD, {"llm_tokens": 1_000_500}) == {"llm_tokens": 1}
    assert cents(ENTERPRISE, {"llm_tokens": 10_000_200}) == {}

    tokens = WORKED["llm_tokens"]
    for more, closed, cost in ((400, 3, 0), (1000, 4, 1)):
        # Usage after the freeze is on the next period's invoice, with the amount that it adds to its own period.
        use(collector, late, {"llm_tokens": more}, LAST_DAY)
        after = month(closed)[f"2027-0{closed - 1}-01 period"]
        (line,) = [line for line in after["lines"] if line["kind"] == "late"]
        before, now = (cents(STANDARD, {"llm_tokens": count})["llm_tokens"] for count in (tokens, tokens + more))
        assert (line["quantity"], line["amount"], line["end"]) == (more, now - before, "2027-02-01T00:00:00.000Z")
        assert (after["total"], now - before) == (9900 + cost, cost)
        tokens += more
