"""All reports state equal costs of usage: the upcoming invoice, the closed one with its late lines, the amounts of
parts of the period and of groups, spend alerts, key budgets and the costs of the current plan.

Customers are random: plans with prices by model, upgrades, corrections, late events, coupons and keys with a budget.
"""

import hashlib
import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
import yaml

from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import key_budgets
from edgeproxy.collector.accounts.key_budgets import KeyBudgetRequest
from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.period_close.invoice_lines import CostDay
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.reports import key_spend, plan_costs, usage_amounts
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.read_once import reading_once
from edgeproxy.collector.database.schema import DAY, EVENTS, EVENTS_REGION, EVENTS_ROUTE, ledger, series
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.config.dimensions import OTHER
from edgeproxy.wire.key_uses import format_usage_key
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY
from tests.support.sold import Sold, sold

NOWHERE = "http://127.0.0.1:9"
MODELS = ("large", "small", "unpriced", "")
KEYS = ("a", "b", OTHER)
TOKENS = {"dimension": "model", "prices": {"large": "0.03", "small": "0.004"}}
PLANS: dict[str, Any] = {
    "small@1": {
        "fee": "9",
        "tier": "standard",
        "meters": {"tokens": {"included": 1000, "price": "0.01", "by": TOKENS}, "calls": {"price": "0.013"}},
    },
    "middle@1": {
        "fee": "19",
        "tier": "standard",
        "minimum": "30",
        "meters": {
            "tokens": {"tiers": [{"up_to": 500, "price": "0.011"}, {"up_to": "none", "price": "0.005"}]},
            "calls": {"included": 200, "price": "0.05", "package": 10},
        },
    },
    "large@1": {
        "fee": "99",
        "tier": "enterprise",
        "quantity": {"max": 20},
        "meters": {"tokens": {"included": 2000, "price": "0.007", "by": TOKENS}, "calls": {"price": "0.002"}},
    },
}
COUPONS = {"HALF": {"percent_off": "50%", "duration": "forever"}, "TWO": {"amount_off": "2", "duration": "forever"}}
METERS = {
    name: {"count": "events", "dimensions": {"model": 10, "key": 100}} for name in next(iter(PLANS.values()))["meters"]
}
LENGTH = FEBRUARY - JANUARY


class Event(NamedTuple):
    """Usage of a meter at a Unix second."""

    at: int
    meter: str
    model: str
    key: str
    value: int


class Drawn(NamedTuple):
    """A random customer."""

    plan: str
    begun: int
    coupon: str | None
    changes: list[tuple[int, str, int]]
    """The time, plan and quantity of each change."""
    events: list[Event]
    late: list[Event]
    cuts: list[int]


KINDS = tuple(itertools.product(list(PLANS)[:2], (None, *COUPONS), (False, True)))
"""All combinations of a plan, a coupon, and whether the plan changes."""


def draw_customer(chance: random.Random, plan: str, coupon: str | None, has_change: bool) -> Drawn:
    begun = JANUARY + int(chance.random() * LENGTH / 2) // 60 * 60

    def draw_events(most: int) -> list[Event]:
        return [
            Event(
                chance.randrange(begun, FEBRUARY) // 60 * 60,
                chance.choice(list(METERS)),
                chance.choice(MODELS),
                chance.choice(KEYS),
                chance.randrange(-100, 1500),
            )
            for _ in range(chance.randrange(most))
        ]

    changes = []
    if has_change:
        # Some changes follow each other within an hour.
        first = chance.randrange(begun + 60, FEBRUARY - 60)
        minutes = {first // 60, *((first + chance.randrange(1 << chance.randrange(21))) // 60 for _ in range(9))}
        times = sorted(minute * 60 for minute in minutes)
        changes = [(at, "large@1", quantity) for quantity, at in enumerate(times, start=1) if at < FEBRUARY - 60]
    cuts = sorted(chance.randrange(JANUARY, FEBRUARY) // 60 * 60 for _ in range(3))
    return Drawn(plan, begun, coupon, changes, draw_events(30), draw_events(4), cuts)


class Checker:
    """A customer in a database, and the checks of all reports of its costs."""

    def __init__(self, shop: Sold, name: str, drawn: Drawn, budget: int = 10**6) -> None:
        """`budget` is the budget of each key in cents a month."""
        self._of, self._name, self._drawn, self._budget = shop, name, drawn, budget
        self._ids = {key: format_usage_key(self._digest(key)).decode() for key in KEYS if key != OTHER}

    def _digest(self, key: str) -> bytes:
        return hashlib.sha256(f"{self._name}/{key}".encode()).digest()

    async def live(self) -> None:
        """Subscribe, change the plan and report usage. Check amounts within the period and after its close."""
        await self.begin()
        with reading_once({}):
            await self._check_running()
        await self._close()
        await self._use(self._drawn.late)
        with reading_once({}):
            await self._check_closed()

    async def begin(self) -> None:
        """Subscribe, change the plan and report usage."""
        drawn, of = self._drawn, self._of
        await of.customer(self._name, drawn.plan, now=drawn.begun, coupon=drawn.coupon)
        await self._make_keys()
        for at, plan, quantity in drawn.changes:
            await of.change(self._name, plan, now=at, when="now", quantity=quantity)
        await self._use(drawn.events)

    async def _make_keys(self) -> None:
        budget = KeyBudgetRequest(amount=self._budget, per="month", currency="usd")
        async with self._of.database.writing() as connection:
            owner = sa.select(customers_table.c.id).where(customers_table.c.name == self._name)
            id_ = (await connection.execute(owner)).scalar_one()
            for key in self._ids:
                row = {"id": f"{self._name}-{key}", "customer": id_, "sha256": self._digest(key).hex(), "start": key}
                more = {"budget": key_budgets.dump_budget(budget), "created_at": 0, "version": 1, "name": key}
                await connection.execute(sa.insert(keys_table), [{**row, **more}])

    async def _use(self, events: list[Event]) -> None:
        database = self._of.database
        async with database.writing() as connection:
            for event in events:
                split = {"key": self._ids.get(event.key, event.key)} | ({"model": event.model} if event.model else {})
                written = "{" + ",".join(f'"{name}":"{split[name]}"' for name in sorted(split)) + "}"
                identity = [EVENTS, EVENTS_REGION, self._name, event.meter, EVENTS_ROUTE, written]
                await database.ledger.insert_series(connection, [identity])
                columns = (series.c.customer, series.c.meter, series.c.dimensions)
                same = [
                    column == value for column, value in zip(columns, (self._name, event.meter, written), strict=True)
                ]
                number = (await connection.execute(sa.select(series.c.id).where(*same))).scalar_one()
                of_split = [{"series": number, "name": name, "value": value} for name, value in split.items()]
                await database.ledger.insert_series_dimensions(connection, of_split)
                await database.ledger.add(connection, ledger, {event.at: {number: event.value}})

    async def _amounts(self, meter: str, span: Span, *fields: str) -> dict[tuple[str, ...], int]:
        """Return the cost of a meter's usage in a time, grouped by `fields`. The key () has the total."""
        async with self._of.database.reading(whole=True) as connection:
            rated = await usage_amounts.rate_usage(connection, self._name, meter, span, self._of.known.meters)
            shares = await usage_amounts.share_by_group(connection, self._name, meter, rated, fields)
            assert sum(shares.values()) == (rated.amount or 0), (meter, span, fields)
            return {**shares, (): rated.amount or 0}

    async def _check_running(self) -> None:
        known, now = self._of.known, FEBRUARY - 1
        async with self._of.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, self._name)
            upcoming = (await invoice_lines.compute_upcoming(connection, loaded, known.meters)).lines
            spent = await invoice_lines.compute_running_cost(connection, loaded, known.meters)
            costs = await invoice_lines.compute_period_costs(connection, loaded, known.meters, now)
            uses = await key_spend.fetch_uses(connection, [self._name], known.meters, now - EPOCH)
            (own,) = await plan_costs.compute_costs(
                connection, loaded, {loaded.current.last.version: loaded.current.last.plan}, known.meters
            )
            fees = (line.amount for line in await self._fetch_invoiced(connection))
            before_discount = sum(fees) + sum(line.amount for line in upcoming if line.meter)
        expected = sum_by_meter(upcoming)
        by_key: Counter[str] = Counter()
        for meter in METERS:
            assert (await self._amounts(meter, Span(JANUARY, FEBRUARY)))[()] == expected[meter], meter
            ends = [JANUARY, *self._drawn.cuts, FEBRUARY]
            parts = [(await self._amounts(meter, Span(*pair), "model"))[()] for pair in itertools.pairwise(ends)]
            assert sum(parts) == expected[meter], f"{parts} of {meter} are parts of {expected[meter]}"
            of_keys = await self._amounts(meter, Span(JANUARY, FEBRUARY), "key")
            by_key.update({of[0]: amount for of, amount in of_keys.items() if of})
        assert {use.key.name: use.used for use in uses} == {
            key: by_key[number] + by_key[OTHER] for key, number in self._ids.items()
        }
        assert own.by_meter == {meter: amount for meter, amount in expected.items() if meter in own.by_meter}
        if self._drawn.coupon is None:
            assert spent == before_discount
        await self._check_days(costs.days, spent)

    async def _check_days(self, days: list[CostDay], spent: int) -> None:
        """Check the cost curve: its last day is the cost so far, and the others add up the usage until then."""
        assert days[-1] == CostDay(FEBRUARY, spent)
        assert [day.until for day in days] == [*range(JANUARY + DAY, FEBRUARY, DAY), FEBRUARY]
        if self._drawn.coupon is None:
            async with self._of.database.reading() as connection:
                invoiced = await self._fetch_invoiced(connection)
            for day in days[1::5]:
                fees = sum(line.amount for line in invoiced if line.segment.start < day.until)
                used = [(await self._amounts(meter, Span(JANUARY, day.until)))[()] for meter in METERS]
                assert day.amount == fees + sum(used), day

    async def _fetch_invoiced(self, connection: Any) -> list[RatedLine]:
        rows = await invoices.fetch_invoices(connection, customers_table.c.name == self._name)
        return [line for row in rows for line in await line_rows.fetch_lines(connection, row.id)]

    async def _close(self) -> None:
        """End January and write the lines of its invoice."""
        known, database = self._of.known, self._of.database
        async with database.reading() as connection:
            number = (await subscription_rows.get_by_customer(connection, self._name)).row.id
        async with database.writing() as connection:
            await subscriptions.roll_period(connection, number, settings=known, now=FEBRUARY)
        await self._write_drafts()

    async def _write_drafts(self) -> None:
        async with self._of.database.reading() as connection:
            draft = (customers_table.c.name == self._name, invoices_table.c.state == invoices.DRAFT)
            drafts = await invoices.fetch_invoices(connection, *draft)
        for row in drafts:
            async with self._of.database.writing() as connection:
                rated = await invoice_lines.compute_period_lines(connection, row, self._of.known.meters)
                await invoices.write_lines(connection, row.id, rated.lines, row.currency)

    async def _check_closed(self) -> None:
        """Check that January's cost equals the closed invoice plus the late lines of the next one."""
        async with self._of.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, self._name)
            upcoming = (await invoice_lines.compute_upcoming(connection, loaded, self._of.known.meters)).lines
            lines = [*await self._fetch_invoiced(connection), *upcoming]
        expected = sum_by_meter([line for line in lines if line.segment.start < FEBRUARY])
        for meter in METERS:
            assert (await self._amounts(meter, Span(JANUARY, FEBRUARY), "key", "model"))[()] == expected[meter], meter
            assert (await self._amounts(meter, Span(JANUARY, FEBRUARY + FREEZE)))[()] == expected[meter], meter


def sum_by_meter(lines: list[RatedLine]) -> Counter[str]:
    """Return the sum of the lines of each meter."""
    amounts: Counter[str] = Counter()
    for line in lines:
        if line.meter:
            amounts[line.meter] += line.amount
    return amounts


@pytest.mark.parametrize("customers", [len(KINDS), pytest.param(1000, marks=pytest.mark.soak)])
async def test_all_reports_state_equal_amounts(tmp_path: Path, sqlite_database: str, seed: int, customers: int) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(yaml.safe_dump({"plans": PLANS}))
    more: dict[str, Any] = {"plans": str(file), "meters": METERS, "coupons": COUPONS}

    async with sold(tmp_path, sqlite_database, NOWHERE, **more) as (shop, _):
        for number in range(customers):
            drawn = draw_customer(random.Random(seed + number), *KINDS[number % len(KINDS)])
            try:
                await Checker(shop, f"c{number}", drawn).live()
            except AssertionError as error:
                raise AssertionError(f"seed {seed + number}: {error}\n{drawn}") from error
    print(f"{customers} customers from seed {seed}")
