"""The spend breaker: a customer who spends many times the usual amount in an hour gets an alert and, if configured, a
pause.

Two checks in a row must find it; a check by an operator needs no second one. There is one alert per customer and day,
so that a person's decision to resume the customer is not reversed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.accounts.states import CustomerState, compute_customer_state
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.meter_export.metered_segments import is_sum
from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.rating import spend_rate
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rating.spend_rate import HourUsage
from edgeproxy.collector.billing.reports import usage_amounts
from edgeproxy.collector.billing.subscriptions import plan_versions, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import HOUR, ledger, series
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.unreadable_rows import UNREADABLE, set_aside
from edgeproxy.config.collector.billing import BreakerThresholds
from edgeproxy.config.collector.catalog import MeterPrice, Plan
from edgeproxy.config.collector.currency_units import USD
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter

WEEK, WEEKS = 7 * 86400, 4
"""The seconds of a week, and the number of earlier weeks whose same hour defines usual spending."""
CANDIDATES_MAX = 1000
"""The most customers compared in one check, highest spending first."""
PICO = 10**12
"""Prices are in this fraction of a smallest unit, for example a cent."""
CALLER = Caller("billing")
WHY_PAUSED = "unusual usage: please contact us"


class Spike(NamedTuple):
    """An hour with extraordinary spending."""

    customer: str
    """The customer, by name."""
    hour: int
    spent: int
    """The cost of the hour's usage, in the currency's smallest unit, for example cents."""
    times: int | None
    """The ratio to usual usage; None if usual usage has no price."""
    currency: str = USD

    @property
    def title(self) -> str:
        """The beginning of its alerts' titles."""
        return f"{self.customer} has spent {format_amount(self.spent, self.currency)} in an hour"

    @property
    def details(self) -> dict[str, object]:
        """The details of its alerts."""
        times = {} if self.times is None else {"times": self.times}
        hour = format_timestamp(self.hour * 1000)
        return {"hour": hour, "spent_cents": self.spent, "currency": self.currency, **times}


class SpendBreaker:
    """Finds customers who spend far more than usual. `settings` returns the current configuration."""

    def __init__(self, database: Database, settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._settings = settings
        self._seen: set[str] = set()
        """The customers with an extraordinary hour at the last check."""
        self._log = log.get_logger()

    async def step(self, now: float, *, needs_second_look: bool = True) -> list[str]:
        """Check once, and return the names of the customers with a new alert."""
        settings = self._settings()
        if settings.billing is None or settings.billing.mode == "off" or not settings.billing.breaker.enabled:
            return []
        breaker = settings.billing.breaker
        async with self._database.reading() as connection:
            plans = await plan_versions.fetch_plans_on_sale(connection, settings.plans, now)
        spikes = await self._find_spikes(plans.values(), breaker, int(now) // HOUR * HOUR)
        due = [spike for spike in spikes if spike.customer in self._seen or not needs_second_look]
        self._seen = {spike.customer for spike in spikes}
        return [spike.customer for spike in due if await self._trip(spike, breaker, now)]

    async def _find_spikes(self, plans: Iterable[Plan], breaker: BreakerThresholds, hour: int) -> list[Spike]:
        async with self._database.reading() as connection:
            names = await list_candidates(connection, plans, breaker.least, hour)
        spikes = []
        for name in names:
            try:
                async with self._database.reading(whole=True) as connection:
                    spike = await _compute_spike(connection, name, breaker, hour, self._settings().meters)
            except UNREADABLE as error:  # An unreadable row of this customer must not hide the spending of others.
                set_aside(customers_table.name, name, error)
                continue
            if spike is not None:
                spikes.append(spike)
        return spikes

    async def _trip(self, spike: Spike, breaker: BreakerThresholds, now: float) -> bool:
        """Raise the alert of a spike, and pause the customer if configured.

        Return whether it is the first of the day.
        """
        async with self._database.writing() as connection:
            # The alert is stored before the pause. If this collector dies between them, operators still learn of the
            # spike.
            if not await raise_once(connection, _build_alert(spike, breaker, now)):
                return False
        self._log.warning("a customer spends far more than usual", customer=spike.customer, spent=spike.spent)
        if breaker.pause:
            await self._pause(spike, now)
        return True

    async def _pause(self, spike: Spike, now: float) -> None:
        """Pause a customer, or raise an alert that explains why that is impossible."""
        day = format_timestamp(int(now * 1000))[:10]
        try:
            async with self._database.writing() as connection:
                row = await customers.get_row(connection, spike.customer, lock=True)
                # A pause by others, or a deletion, must stay as it was decided.
                if compute_customer_state(row) is not CustomerState.ACTIVE:
                    return
                change = UpdateCustomerRequest.model_validate({"paused": {"why": WHY_PAUSED, "status": "403"}})
                await customers.update_customer(connection, CALLER, spike.customer, change, self._settings())
                alert = Alert(
                    key=f"spend-pause:{spike.customer}:{day}",
                    kind=AlertKind.CUSTOMER_PAUSED,
                    customer=spike.customer,
                    title=f"{spike.title}, and is paused",
                    details=spike.details,
                    at=now,
                )
                await raise_once(connection, alert)
        except ChangeRejectedError as error:
            alert = Alert(
                key=f"spend-pause-failed:{spike.customer}:{day}",
                kind=AlertKind.CUSTOMER_PAUSE_FAILED,
                title=f"{spike.title}, and cannot be paused here: {error.why}",
                details={**spike.details, "of": spike.customer, "why": error.why},
                at=now,
            )
            async with self._database.writing() as connection:
                await raise_once(connection, alert)


async def list_candidates(
    connection: AsyncConnection, plans: Iterable[Plan], least: Mapping[str, int], hour: int
) -> list[str]:
    """Return the names of customers who may have spent the least amount since the start of an hour.

    Their usage is valued at the highest price that any plan has for a meter. The highest spending comes first.
    """
    parts: dict[str, float] = {}
    in_all = [one for plan in plans for one in (plan, *plan.others.values())]
    for plan in (plan for plan in in_all if plan.currency in least):
        for meter, price in plan.meters.items():
            part = spend_rate.get_highest_price(price) / PICO / max(1, least[plan.currency])
            parts[meter] = max(parts.get(meter, 0.0), part)
    priced = {meter: part for meter, part in parts.items() if part}
    if not priced:
        return []
    # One statement finds the few customers to examine. It overestimates: it uses the highest price of any plan.
    worth = sa.func.sum(sa.cast(ledger.c.value, sa.Float) * sa.case(priced, value=series.c.meter, else_=0.0))
    statement = (
        sa.select(series.c.customer)
        .join_from(ledger, series, series.c.id == ledger.c.series)
        .where(ledger.c.minute >= hour, ledger.c.minute < hour + HOUR, series.c.meter.in_(list(priced)))
        .group_by(series.c.customer)
        .having(worth >= 1)
        .order_by(worth.desc())
        .limit(CANDIDATES_MAX)
    )
    return list(await connection.scalars(statement))


async def _compute_spike(
    connection: AsyncConnection, name: str, breaker: BreakerThresholds, hour: int, meters: Mapping[str, Meter]
) -> Spike | None:
    """Return the spike of a customer in an hour, or None if there is none or the customer has no plan."""
    try:
        loaded = await subscription_rows.get_by_customer(connection, name)
    except ChangeRejectedError:
        return None
    plan, span = loaded.current.last.plan, Span(hour, hour + HOUR)
    value = spend_rate.compute_value(plan, await _fetch_hour(connection, loaded, span, meters))
    least = breaker.least.get(plan.currency)
    if least is None or value < least:
        return None
    usual = spend_rate.compute_usual_value(plan, await _fetch_usual_hours(connection, loaded, hour, meters))
    if not spend_rate.is_spike(value, usual, breaker, plan.currency):
        return None
    spent = 0
    for meter in _list_summed_prices(plan, meters):
        rated = await usage_amounts.rate_usage(connection, name, meter, span, meters)
        spent += rated.amount or 0
    return Spike(name, hour, spent, value // usual if usual else None, plan.currency)


def _list_summed_prices(plan: Plan, meters: Mapping[str, Meter]) -> dict[str, MeterPrice]:
    """Return the prices of a plan's meters that are sums."""
    return {meter: price for meter, price in plan.meters.items() if price.has_prices and is_sum(meters, meter)}


async def _fetch_hour(
    connection: AsyncConnection, loaded: LoadedSubscription, hour: Span, meters: Mapping[str, Meter]
) -> HourUsage:
    """Return an hour's usage of the meters with a price in the current plan."""
    last = loaded.current.last
    segment = last._replace(
        plan=last.plan.model_copy(update={"meters": _list_summed_prices(last.plan, meters)}), span=hour
    )
    terms = quantities.QuantityTerms(meters, loaded.current.anchor)
    used = await quantities.fetch_quantities(
        connection, loaded.customer.name, [segment], segment, terms, leaves_out=True
    )
    by_meter: dict[str, dict[str, int]] = {}
    for key, quantity in used.items():
        by_meter.setdefault(key.meter, {})[key.value] = quantity
    return by_meter


async def _fetch_usual_hours(
    connection: AsyncConnection, loaded: LoadedSubscription, hour: int, meters: Mapping[str, Meter]
) -> list[HourUsage]:
    """Return the usage of this hour in earlier weeks, without weeks before the customer existed."""
    hours = []
    for week in range(1, WEEKS + 1):
        start = hour - week * WEEK
        # Zeros from before the customer existed would make any usage unusual.
        if start * 1000 < loaded.customer.created_at:
            break
        try:
            hours.append(await _fetch_hour(connection, loaded, Span(start, start + HOUR), meters))
        # Earlier weeks are gone, too: the ledger drops its oldest hours first.
        except quantities.UsageNotStoredError:
            break
    return hours


def _build_alert(spike: Spike, breaker: BreakerThresholds, now: float) -> Alert:
    usual = "where little is usual" if spike.times is None else f"at {spike.times} times its usual usage"
    return Alert(
        key=f"spend-spike:{spike.customer}:{format_timestamp(int(now * 1000))[:10]}",
        kind=AlertKind.SPEND_SPIKE,
        customer=spike.customer,
        title=f"{spike.title}, {usual}",
        details=spike.details,
        at=now,
    )
