"""The months before a demonstration: customers with plans, usage, and invoices that Stripe's sandbox has charged.

The collector's own functions write them, with a clock that begins in the past, before the collector starts. So books,
invoices and pages agree as after months of service.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import sin
from pathlib import Path
from typing import NamedTuple, Protocol

import sqlalchemy as sa

from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.collector.accounts import contacts, customers, keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.contacts import Contacts
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CreateKeyRequest
from edgeproxy.collector.billing.invoices import bookings
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.billing.stripe.request_rates import RequestPacer
from edgeproxy.collector.billing.subscriptions import plan_versions, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE
from edgeproxy.collector.database.schema import customers as customer_rows
from edgeproxy.collector.database.schema import keys as key_rows
from edgeproxy.collector.database.traffic_tables import traffic
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_writer import EventRequest, EventWriter, Receipt
from edgeproxy.collector.jobs.billing import build_processor
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.rollup import roll_up_slice
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.dimensions import format_dimensions
from edgeproxy.demo.bursts import BURST_SECONDS, REFUSED_IN_BURST
from edgeproxy.demo.company import ATLAS, CUSTOMERS, FIRST_KEY, Customer, build_contact, build_new_customer
from edgeproxy.demo.services import REGIONS
from edgeproxy.demo.web import require, send

PAST_MONTHS = 6
"""Whole months before the current one."""
TRAFFIC_DAYS = 30
"""Days of requests by hour, as edges report them."""
HOUR_REQUESTS = 6000
"""Requests of an edge in an hour, on average."""
LATENCIES = (0, 0, 0, 0, 2, 18, 42, 24, 9, 4, 1, 0, 0, 0, 0, 0, 0, 0)
"""The share of each latency bucket, in hundredths."""
CHARGE_ROUNDS_MAX = 20
"""Rounds of the job that charges invoices, after each step of the clock."""
CALLS_PER_SECOND = 10_000.0
POLL_SECONDS = 0.1
STAFF = Caller("demo-operator")
DECLINED = "pm_card_chargeCustomerFail"


class Life(NamedTuple):
    """A customer with a plan. Each change has its month, as a number of months before the current one."""

    customer: Customer
    joined: int
    """The number of months before the current one."""
    plan: str
    tokens: int
    """Tokens a day in the first month."""
    upgraded: int | None = None
    """The month of the change to Enterprise."""
    left: int | None = None


def build_life(name: str, *terms: int | str, card: str = "pm_card_visa", **more: int) -> Life:
    """Return the life of a customer that is in no line of the tour."""
    return Life(Customer(name, "free", card), *terms, **more)  # type: ignore[arg-type]


DENEB = build_life("deneb", 5, "standard", 21_000, left=2)
LIVES = (
    Life(ATLAS, 6, "standard", 400_000, upgraded=3),
    build_life("lyra", 6, "standard", 38_000),
    build_life("rigel", 4, "enterprise", 410_000),
    DENEB,
    build_life("altair", 0, "standard", 12_000, card=DECLINED),
)
"""One takes a larger plan, one leaves, and the card of the last is declined."""
USES_A_DAY = 4
"""Counts of Atlas's usage in a day, beside its calls of the present. Other customers have one."""
GROWTH = 0.12
"""Growth of usage in a month, as a share of the first."""
KEYS = (FIRST_KEY, "reports")
"""The names of Atlas's keys."""


class Clock(Protocol):
    """A clock that only moves when it is set."""

    present: float
    now: float


class Unmeasured:
    """The metrics of a writer that no one scrapes."""

    def __init__(self) -> None:
        self.goods: list[ScarceGood] = []

    def events_settled(self, receipt: Receipt) -> None:
        """Ignore counted events."""

    def failed(self) -> None:
        """Ignore a failed transaction."""

    def unknown_names(self, kind: str, count: int) -> None:
        """Ignore the number of unknown names."""


class History:
    """The writer of the months before now."""

    def __init__(self, clock: Clock, database: Database, settings: CollectorSettings, stripe_url: str) -> None:
        self._clock = clock
        self._database = database
        self._settings = settings
        assert settings.billing is not None
        self._stripe_url = stripe_url
        self._stripe = Stripe(settings.billing.stripe)
        # The sandbox takes any number of calls.
        self._stripe.pace = self._stripe.events_pace = RequestPacer(CALLS_PER_SECOND, CALLS_PER_SECOND)
        self._processor = build_processor(settings, database, self._stripe, lambda _: None)
        self._closing = PeriodCloseJob(database, self._stripe, lambda: self._settings, self._processor.complete)
        metrics = Unmeasured()
        self._writer = EventWriter(database, KnownNames((), (), metrics), metrics)
        self._usage_keys: dict[str, list[str]] = {}
        """The names of keys in the ledger, by customer."""
        self._used_until = clock.now
        self.secrets: dict[str, dict[str, str]] = {}
        """The secrets of keys, by customer and by name of the key."""

    async def write(self) -> None:
        """Write everything up to the present."""
        writing = asyncio.get_running_loop().create_task(self._writer.run())
        await self._move(find_month(self._clock.present, PAST_MONTHS))
        self._used_until = self._clock.now
        async with self._database.writing() as connection:
            await plan_versions.record_plans(connection, self._settings.plans)
        for customer in CUSTOMERS:
            await self._create_customer(customer)
        for months in range(PAST_MONTHS, -1, -1):
            await self._live_month(months)
        await self._move(self._clock.present)
        await self._charge()
        await self._report_traffic()
        async with self._database.writing() as connection:
            today = int(self._clock.present) // DAY * DAY
            await connection.execute(sa.update(key_rows).values(last_used_on=today))
            callers = customer_rows.c.id.in_(sa.select(key_rows.c.customer))
            await connection.execute(sa.update(customer_rows).where(callers).values(last_call_on=today))
        while await roll_up_slice(self._database, self._clock.present):
            pass
        self._writer.end()
        await writing
        await self._stripe.close()

    async def _live_month(self, months: int) -> None:
        """Live the month that is so many months before the current one: its first minutes, then its changes."""
        begin = find_month(self._clock.present, months)
        await self._move(begin + 60)
        await self._charge()
        # Customers of this month came yesterday, so that the next try of a declined payment is to come.
        first = begin + 2 * DAY if months else max(begin + 120, self._clock.present - 20 * HOUR)
        for place, life in enumerate(life for life in LIVES if months in (life.joined, life.upgraded, life.left)):
            await self._move(first + place * DAY)
            name, now = life.customer.name, self._clock.now
            if months == life.joined:
                if life.customer not in CUSTOMERS:
                    await self._create_customer(life.customer)
                await self._add_card(life.customer)
            async with self._database.writing() as connection:
                of = (connection, STAFF, name)
                if months == life.joined:
                    await subscriptions.create_subscription(
                        *of, life.plan, is_yearly=False, settings=self._settings, now=now
                    )
                elif months == life.upgraded:
                    await subscriptions.change_subscription(*of, "enterprise", "now", settings=self._settings, now=now)
                else:
                    await subscriptions.cancel_subscription(*of, "period_end", settings=self._settings, now=now)
            await self._charge()

    async def _move(self, moment: float) -> None:
        """Count the usage up to a moment, not after the present, and let it be that moment here and at Stripe."""
        moment = min(moment, self._clock.present)
        events = list(list_usage(self._used_until, moment, self._clock.present, self._usage_keys))
        events += list_refusals(self._used_until, moment, self._clock.present)
        self._clock.now = moment
        if events:
            await self._writer.write_events(EventRequest("demo-service", list(enumerate(events)), []))
            self._used_until = moment
        # The sandbox's clock goes on meanwhile, and may be ahead of a moment just before the present.
        seconds = moment - require(send(f"{self._stripe_url}/_sandbox/clock"), 200)["now"]
        if seconds > 0 or not self._usage_keys:
            require(send(f"{self._stripe_url}/_sandbox/clock", json_body={"advance": seconds}), 200)

    async def _charge(self) -> None:
        """Close due invoices, have Stripe charge them, and book the payments."""
        for _ in range(CHARGE_ROUNDS_MAX):
            if not await self._closing.step(time.time()):
                break
        await self._processor.complete()
        while await bookings.book_invoices(self._database):
            pass

    async def _create_customer(self, customer: Customer) -> None:
        async with self._database.writing() as connection:
            request = CreateCustomerRequest.model_validate(build_new_customer(customer))
            await customers.create_customer(connection, STAFF, request, self._settings)
            await contacts.put_contacts(connection, STAFF, customer.name, Contacts(emails=(build_contact(customer),)))
        if customer is ATLAS or customer not in CUSTOMERS:
            for name in KEYS if customer is ATLAS else (FIRST_KEY,):
                async with self._database.writing() as connection:
                    key = await keys.create_key(connection, STAFF, customer.name, CreateKeyRequest(name=name))
                self._usage_keys.setdefault(customer.name, []).append(key["usage_key"])
                self.secrets.setdefault(customer.name, {})[name] = key["secret"]

    async def _add_card(self, customer: Customer) -> None:
        """Save a card at Stripe, as on the page that the portal sends browsers to."""
        async with self._database.reading() as connection:
            owner = await customers.get_row(connection, customer.name)
        at_stripe = StripeCustomers(self._database, self._stripe)
        stripe_id = await at_stripe.get_or_create_now(owner.id, customer.name)
        await at_stripe.fetch_payer(owner.id, stripe_id)
        card = {"default_payment_method": customer.card}
        await self._stripe.call("v1.customers.update", stripe_id, invoice_settings=card)

    async def _report_traffic(self) -> None:
        """Record the requests of the last days by hour, and the requests of the last day by minute, too."""
        present = int(self._clock.present)
        rows = [
            row
            for step, first in ((HOUR, present - TRAFFIC_DAYS * DAY), (MINUTE, present - DAY))
            for start in range(first // step * step, present // step * step, step)
            for edge in ("history-eu", "history-us")
            for row in [build_traffic(edge, step, start)]
        ]
        async with self._database.writing() as connection:
            await connection.execute(sa.insert(traffic), rows)


def find_month(present: float, months: int) -> float:
    """Return the begin of the calendar month (UTC) that is so many months before the current one."""
    now = datetime.fromtimestamp(present, UTC)
    number = now.year * 12 + now.month - 1 - months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()


def list_usage(since: float, until: float, present: float, usage_keys: dict[str, list[str]]) -> Iterator[UsageEvent]:
    """Yield the usage of customers with these keys, at the present's time of each day."""
    for life in LIVES:
        if life.customer.name not in usage_keys:
            continue
        step = DAY // USES_A_DAY if life.customer is ATLAS else DAY
        moment = present - (present - since) // step * step
        while moment <= until and not has_left(life, moment, present):
            yield from list_moment(life, moment, present, step, usage_keys[life.customer.name])
            moment += step


def list_refusals(since: float, until: float, present: float) -> Iterator[UsageEvent]:
    """Yield the refusals since Deneb has had Free again, as its bursts cause them (callers.py): by day, and those of
    the last day by burst, up to the last burst before the present.
    """
    for step, first, last in (
        (DAY, since, min(until, present - DAY)),
        (BURST_SECONDS, max(since, present - DAY + 1), min(until, present - BURST_SECONDS)),
    ):
        moment = present - (present - first) // step * step
        while moment <= last:
            if has_left(DENEB, moment, present):
                yield UsageEvent(
                    source="demo-history",
                    id=f"refusals-{int(moment)}",
                    customer=DENEB.customer.name,
                    meter="refusals",
                    value=REFUSED_IN_BURST * step // BURST_SECONDS,
                    time=int(moment),
                    dimensions=format_dimensions({"certain": "yes", "limit": DENEB.customer.tier}),
                )
            moment += step


def has_left(life: Life, moment: float, present: float) -> bool:
    """Return whether a customer's plan has ended."""
    return life.left is not None and moment >= find_month(present, life.left - 1)


def list_moment(
    life: Life, moment: float, present: float, seconds: int, usage_keys: Sequence[str]
) -> Iterator[UsageEvent]:
    """Yield a customer's usage in the seconds before a moment: more each month, less at weekends."""
    day = time.gmtime(moment)
    share = seconds / DAY * (1 + GROWTH * (PAST_MONTHS - (present - moment) / (30 * DAY)))
    share *= 0.35 if day.tm_wday >= 5 else 0.8 + 0.2 * (day.tm_yday * 7 % 11) / 10
    used = [
        ("llm_tokens", life.tokens * 0.12, {"model": "large", "agent": "writer"}),
        ("llm_tokens", life.tokens * 0.88, {"model": "small", "agent": "reader"}),
        ("agent_executions", life.tokens / 9000, {"agent": "writer"}),
    ]
    for weight, key in zip((2, 1), usage_keys, strict=False):
        used += [("api_calls", weight * life.tokens / 250, {"key": key}), ("requests", weight * life.tokens / 240, {})]
    for number, (meter, quantity, dimensions) in enumerate(used):
        yield UsageEvent(
            source="demo-history",
            id=f"{life.customer.name}-{int(moment)}-{number}",
            customer=life.customer.name,
            meter=meter,
            value=max(1, round(share * quantity)),
            time=int(moment),
            dimensions=format_dimensions(dimensions),
        )


def build_traffic(edge: str, step: int, start: int) -> dict[str, object]:
    """Return the row of an edge's requests in an hour or a minute: fewer at night, and few errors."""
    hour = start // HOUR % 24
    share = (0.5 + 0.1 * min(hour, 24 - hour)) * (1.1 if "eu" in edge else 0.7) * (1 + 0.2 * sin(start / 800))
    requests = round(HOUR_REQUESTS * step / HOUR * share)
    bursts = step // BURST_SECONDS if step > BURST_SECONDS else int(start % BURST_SECONDS < step)
    buckets = {f"bucket_{place}": requests * share // 100 for place, share in enumerate(LATENCIES)}
    return {
        "step": step, "start": start, "edge": edge, "region": REGIONS["eu" not in edge], "minutes": step // MINUTE,
        "requests": requests, "rate_limited": bursts * REFUSED_IN_BURST // 2, "client_errors": requests // 60,
        "server_errors": int(start // step % 31 == 7), **buckets,
    }  # fmt: skip


def await_sandbox(url: str) -> None:
    """Return once Stripe's sandbox answers. The demonstration ends this process if it never does."""
    while True:
        try:
            require(send(f"{url}/_sandbox/ready"), 200)
            return
        except OSError:
            time.sleep(POLL_SECONDS)


def write_history(clock: Clock, config: Path, stripe_url: str) -> None:
    """Write the history into the database of a collector.yaml, and print the secrets of keys."""

    async def write() -> dict[str, dict[str, str]]:
        settings = load_collector(config, os.environ)
        clock.now = find_month(clock.present, PAST_MONTHS)
        await_sandbox(stripe_url)
        database = await Database.connect(settings.database)
        try:
            history = History(clock, database, settings, stripe_url)
            await history.write()
        finally:
            await database.close()
        return history.secrets

    print(json.dumps(asyncio.run(write())))
