"""The quota monitor: it gives edges the ledger's counts of nearly used-up quotas, and raises alerts at thresholds.

Counted usage only tells which customers to check. Their total usage is read from the ledger, for all of them in one
query. So usage from several collectors and from before a kill is included. At intervals all customers with usage are
checked, because quotas change too.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.calendar import Period, period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import documents, list_figures
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.list_figures import CapUse
from edgeproxy.collector.accounts.notices import raise_notice
from edgeproxy.collector.alerts.alert import Alert, raise_alerts
from edgeproxy.collector.alerts.kinds import NOTICES
from edgeproxy.collector.billing.credits import balances, credit_notices, top_ups
from edgeproxy.collector.billing.credits.balances import CreditUsage
from edgeproxy.collector.billing.jobs.credits import get_credit_meters
from edgeproxy.collector.billing.reports import key_spend
from edgeproxy.collector.billing.reports.key_budget_alerts import make_budget_alerts
from edgeproxy.collector.billing.reports.key_spend import BudgetUse
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.periodic import Job, Rest, repeat
from edgeproxy.collector.database.quota_tables import holdings
from edgeproxy.collector.database.schema import series
from edgeproxy.collector.ledger.aggregates import Reading
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.quotas import cap_breaches, counts, customer_quotas, gauge_caps, usage
from edgeproxy.collector.quotas.cap_breaches import is_breached
from edgeproxy.collector.quotas.counts import CountChange, QuotaCount
from edgeproxy.collector.quotas.quota_alerts import get_level_month, make_level_alerts, make_quota_alerts
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.allowance import SpendingCap
from edgeproxy.config.collector.settings import CollectorSettings

K = TypeVar("K")
V = TypeVar("V")

UTC = ZoneInfo("UTC")
GATHER_SECONDS = 0.05
"""Seconds for gathering usage before a check."""
RETRY_SECONDS = 1.0
"""Seconds until a failed check is repeated."""
LOOK_SECONDS = 0.25
"""Seconds between two checks for other collectors' changes while an edge waits."""
CUSTOMERS_MAX = 500
"""Customers checked in one step."""
ROUND_SECONDS = 600.0
"""Seconds between two rounds over all customers with usage."""
ROUND_RESTS = 3.0
"""The pause after each step of a round, as a multiple of its duration."""
TOLD_MAX = 200_000
"""Most quotas whose last count for edges, and raised alerts, are remembered."""

Quota = tuple[str, str, str, str]
"""Customer, meter, day or month, and time zone."""


class QuotaMonitor:
    """The quotas of one database in the view of one collector. `run` checks until it is cancelled."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._settings: CollectorSettings
        self._waiting: dict[str, set[str]] = defaultdict(set)
        """Meters with unchecked usage, by customer."""
        self._some = asyncio.Event()
        self._published: dict[Quota, QuotaCount] = {}
        self._raised: dict[str, None] = {}
        """The remembered keys of raised alerts."""
        self._passed: dict[tuple[str, str, Period | None], None] = {}
        """Soft caps of plans known to be breached: customer, meter and period."""
        self._caps: dict[str, CapUse] = {}
        """The recorded use of spending caps by customer, in whole percent."""
        self._newest = 0
        """The latest change that this collector knows."""
        self._changed = asyncio.Event()
        """Set and replaced at each new change."""
        self._ended = False
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    def use(self, settings: CollectorSettings) -> None:
        """Use the tiers and customers of these settings."""
        self._settings = settings

    def counted(self, some: Iterable[tuple[str, str]]) -> None:
        """Record that usage of these pairs of customer and meter was counted."""
        for customer, meter in some:
            self._waiting[customer].add(meter)
        if self._waiting:
            self._some.set()

    async def find_refused_readings(
        self, connection: AsyncConnection, reported: Mapping[gauge_caps.GaugeKey, Sequence[Reading]]
    ) -> dict[gauge_caps.GaugeKey, dict[int, str]]:
        """Return which new gauge readings a hard cap refuses, by index, with the reason."""
        return await gauge_caps.find_refused_readings(connection, reported, self._settings)

    async def run(self) -> None:
        """Check customers with new usage, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._some.clear()
            waiting, self._waiting = self._waiting, defaultdict(set)
            names = list(waiting)
            for at in range(0, len(names), CUSTOMERS_MAX):
                some = {name: waiting[name] for name in names[at : at + CUSTOMERS_MAX]}
                if failed := await self._failed_of(some):
                    again = [(name, meter) for name, meters in failed.items() for meter in meters]
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self.counted, again)

    async def run_rounds(self) -> None:
        """Check all customers with usage in rounds until cancelled, the first one at once."""
        after = ""

        async def check_page() -> Rest | None:
            nonlocal after
            began = time.monotonic()
            page = await self._fetch_page(after)
            after = max(page, default="")
            if not page:
                return None
            await self._failed_of(page)
            return Rest(ROUND_RESTS * (time.monotonic() - began))

        failed = "quotas could not be looked at, and are looked at again"
        await repeat(Job("quota-rounds", ROUND_SECONDS, failed, check_page), self._limited_log)

    async def _fetch_page(self, after: str) -> Mapping[str, set[str]]:
        """Return the next customers with usage, and their meters."""
        meters_by_customer: dict[str, set[str]] = defaultdict(set)
        try:
            async with self._database.reading() as connection:
                pages = [
                    sa.select(table.c.customer).where(table.c.customer > after).distinct().order_by(table.c.customer)
                    for table in (series, holdings)
                ]
                names = [name for page in pages for name in await connection.scalars(page.limit(CUSTOMERS_MAX))]
                some = sorted(set(names))[:CUSTOMERS_MAX]
                for table in (series, holdings) if some else ():
                    pairs = sa.select(table.c.customer, table.c.meter).where(table.c.customer.in_(some)).distinct()
                    for customer, meter in await connection.execute(pairs):
                        meters_by_customer[customer].add(meter)
        except Exception as error:  # The next round must still run.
            self._record_failure(error)
        return meters_by_customer

    async def _failed_of(self, some: Mapping[str, set[str]]) -> Mapping[str, set[str]]:
        """Check these customers' quotas of these meters; return the customers whose check failed."""
        try:
            await self._check_quotas(some)
        except Exception as error:  # The monitor runs as long as the collector.
            if isinstance(error, CONNECTION_ERRORS) or len(some) == 1:
                self._record_failure(error)
                return some
            # The set is halved until the customer that fails is alone and blocks no others.
            names, failed = list(some), dict[str, set[str]]()
            for half in (names[: len(names) // 2], names[len(names) // 2 :]):
                failed |= await self._failed_of({name: some[name] for name in half})
            return failed
        return {}

    def _record_failure(self, error: Exception) -> None:
        self._metrics.quota_failures.inc()
        self._limited_log.error("quotas could not be looked at, and are looked at again", format_reason(error))
        if not isinstance(error, CONNECTION_ERRORS):
            self._log.error("a fault in the collector", exc_info=error)

    async def _check_quotas(self, some: Mapping[str, set[str]]) -> None:
        now = usage.edge_time()
        async with self._database.reading(whole=True) as connection:
            known = await customer_quotas.fetch_quotas(connection, some, self._settings)
            held = [
                one
                for one in (
                    quotas._replace(
                        quotas=tuple(quota for quota in quotas.quotas if quota.meter in some[quotas.customer])
                    )
                    for quotas in known.values()
                )
                if one.quotas
            ]
            statuses_by_customer = (
                await usage.fetch_statuses(connection, held, self._settings.meters, now) if held else {}
            )
            levels = await self._make_level_alerts(connection, statuses_by_customer, now)
            credit_counts, credit_usage = await self._fetch_balances(connection, some)
            due = await self._make_credit_notices(connection, credit_usage, now)
            low = await top_ups.find_low(connection, credit_usage)
            budgets = await key_spend.fetch_uses(connection, some, self._settings.meters, now)
        changes = [
            count
            for customer, statuses in statuses_by_customer.items()
            for status in statuses
            if (count := build_count(customer, status)) is not None
            and counts.is_worth_publishing(self._published.get(count[:4]), count, status.quota.included)
        ]
        changes += [
            count
            for count, granted in credit_counts
            if counts.is_balance_worth_publishing(self._published.get(count[:4]), count, granted)
        ]
        changes += [
            count
            for use in budgets
            if (count := build_budget_count(use)) is not None
            and counts.is_worth_publishing(self._published.get(count[:4]), count, use.budget.amount)
        ]
        due += levels + [
            alert
            for customer, statuses in statuses_by_customer.items()
            for status in statuses
            for alert in make_quota_alerts(customer, status, self._settings.alerts.thresholds, now)
            if alert.key not in self._raised
        ]
        due += [
            alert
            for use in budgets
            for alert in make_budget_alerts(use, self._settings.alerts.thresholds, now)
            if alert.key not in self._raised
        ]
        passed = {
            (customer, status.quota.meter): status
            for customer, statuses in statuses_by_customer.items()
            for status in statuses
            if is_breached(status) and (customer, status.quota.meter, status.period) not in self._passed
        }
        caps = {
            customer: list_figures.build_cap_use(status.used, status.quota.included, round(status.period.until + EPOCH))
            for customer, statuses in statuses_by_customer.items()
            for status in statuses
            if isinstance(status.quota, SpendingCap) and status.period is not None
        }
        # A list shows whole percent, so that a cap is written a hundred times a day at most.
        caps = {name: use for name, use in caps.items() if self._caps.get(name) != use.rounded}
        if changes or due or passed or caps or low:
            await self._write(changes, due, passed, caps, low, now)

    async def _write(
        self,
        changes: Sequence[QuotaCount],
        due: Sequence[Alert],
        passed: Mapping[tuple[str, str], QuotaUsage],
        caps: Mapping[str, CapUse],
        low: Sequence[str],
        now: float,
    ) -> None:
        """Write counts for edges, alerts, breached caps, the use of caps and low credits, and remember them."""
        async with self._database.writing() as connection:
            await list_figures.record_cap_uses(connection, caps)  # Customers are locked before their other rows.
            await counts.write_counts(self._database, connection, changes)
            await raise_alerts(connection, [alert for alert in due if alert.kind not in NOTICES])
            for notice in sorted((alert for alert in due if alert.kind in NOTICES), key=attrgetter("key")):
                await raise_notice(connection, notice)
            await cap_breaches.write_breaches(connection, passed, now)
            await top_ups.mark_due(connection, low, now_ms())
        remember(self._caps, {name: use.rounded for name, use in caps.items()})
        remember(self._passed, {(*which, status.period): None for which, status in passed.items()})
        remember(self._raised, dict.fromkeys(alert.key for alert in due))
        remember(self._published, {count[:4]: count for count in changes})
        await self._refresh_newest()

    async def _make_level_alerts(
        self, connection: AsyncConnection, statuses: Mapping[str, Sequence[QuotaUsage]], now: float
    ) -> list[Alert]:
        """Return new alerts for quotas of existing items whose levels have risen this month."""
        thresholds = self._settings.alerts.thresholds
        reached = [
            (customer, status)
            for customer, listed in statuses.items()
            for status in listed
            if status.period is None and status.used and any(map(status.has_reached, thresholds))
        ]
        month, meters = get_level_month(now), self._settings.meters
        some = {(customer, status.quota.meter) for customer, status in reached}
        earlier = await usage.fetch_earlier_levels(connection, some, meters, month) if some else {}
        return [
            alert
            for customer, status in reached
            for alert in make_level_alerts(customer, status, earlier[customer, status.quota.meter], thresholds, now)
            if alert.key not in self._raised
        ]

    async def _fetch_balances(
        self, connection: AsyncConnection, some: Mapping[str, set[str]]
    ) -> tuple[list[tuple[QuotaCount, int]], Mapping[str, CreditUsage]]:
        """Return spent and granted prepaid credits of the customers who used the credits meter: for edges, and all."""
        billing = self._settings.billing
        meters = None if billing is None else get_credit_meters(billing)
        if meters is None:
            return [], {}
        by_currency = {currency: one.cost for currency, one in meters.by_currency.items()}
        names = [customer for customer, used in some.items() if used.intersection(by_currency.values())]
        if not names:
            return [], {}
        spent = await balances.fetch_credit_usage(connection, meters, names)
        now = await documents.fetch_terms(connection)
        if now.credits_meters != by_currency:
            return [], spent
        per, (number, _, _) = now.credits_per, period_of(usage.edge_time(), now.credits_per, UTC)
        published = [
            (QuotaCount(name, by_currency[one.currency], per, str(UTC), number, one.used), one.granted)
            for name, one in spent.items()
            if one.currency in by_currency
        ]
        return published, spent

    async def _make_credit_notices(
        self, connection: AsyncConnection, spent: Mapping[str, CreditUsage], now: float
    ) -> list[Alert]:
        """Return new notices of credits that are low or used up."""
        billing = self._settings.billing
        if not spent or billing is None or billing.credits is None:
            return []
        notices = await credit_notices.make_notices(connection, spent, billing.credits.low_percent, now)
        return [notice for notice in notices if notice.key not in self._raised]

    # ---- for edges

    async def behind(self, seq: int, seconds: float) -> tuple[int, list[CountChange]]:
        """Return the newest number and the changes after `seq`, as soon as there are some or when the time is over.

        If `seq` is from another or a restored database, return all changes.
        """
        until = time.monotonic() + seconds
        while True:
            await self._refresh_newest()
            left = until - time.monotonic()
            if self._newest != seq or left <= 0 or self._ended:
                break
            changed = self._changed
            try:
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await changed.wait()
            except TimeoutError:
                pass
        async with self._database.reading(whole=True) as connection:
            newest = await counts.fetch_newest(connection)
            return newest, list(await counts.list_changes(connection, seq if seq <= newest else 0))

    def end(self) -> None:
        """Release all waiting requests."""
        self._ended = True
        self._changed.set()

    async def _refresh_newest(self) -> None:
        async with self._database.reading() as connection:
            newest = await counts.fetch_newest(connection)
        if newest != self._newest:
            self._newest, before = newest, self._changed
            self._changed = asyncio.Event()
            before.set()


def remember(memory: dict[K, V], new: Mapping[K, V]) -> None:
    """Add entries to a memory. Beyond TOLD_MAX it forgets the entries that were added longest ago."""
    for key, value in new.items():
        memory.pop(key, None)
        memory[key] = value
    while len(memory) > TOLD_MAX:
        del memory[next(iter(memory))]


def build_budget_count(use: BudgetUse) -> QuotaCount | None:
    """Return the count of a key's budget for edges, or None if unknown."""
    if use.used is None:
        return None
    budget = use.budget.to_directory(use.key.start)
    return QuotaCount(budget.subject, budget.meter, budget.per, budget.timezone, use.period.number, use.used)


def build_count(customer: str, status: QuotaUsage) -> QuotaCount | None:
    """Return the count for edges, or None if the quota has no periods."""
    quota, period = status.quota, status.period
    if quota.per is None or period is None:
        return None
    return QuotaCount(customer, quota.meter, quota.per, quota.timezone, period.number, status.used)
