"""Checks of usage and spending on an operator's request, and baselines of customers."""

import time
from typing import Literal

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.anomalies.baseline import Baseline, unroot
from edgeproxy.collector.anomalies.job import AnomalyJob
from edgeproxy.collector.api.endpoint import READERS, SUPPORT, Call, Nothing, Query, get, post
from edgeproxy.collector.api.group import Group, Handlers
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.billing.jobs.spend_breaker import SpendBreaker
from edgeproxy.collector.database.alert_tables import anomaly_baselines
from edgeproxy.collector.database.periodic import STANDBY
from edgeproxy.collector.database.unreadable_rows import reading_row


class CheckResult(TypedDict):
    """The result of the checks."""

    usage: Literal["run", "standby", "off"]
    """`run`: each completed hour and day was judged; `standby`: another run is under way; `off`: no judgements are
    configured.
    """
    spending: Literal["run", "off"]
    """`run`: the spending of this hour was compared with the usual; `off`: the breaker is off, or nothing is on sale.
    """
    alerted: list[str]
    """The customers with a new alert about their spending, by name. Customers who had such an alert today are left out.
    """


class MeterBaseline(TypedDict):
    """The usual usage of a meter: medians of up to eight weeks."""

    meter: str
    """The meter."""
    hours: list[float]
    """The usual units of each hour of the week, 168 numbers. The first hour starts on Thursday at 00:00 UTC."""
    days: list[float]
    """The usual units of each day of the week, starting with Thursday."""
    likeness: float
    """How similar a day's hours usually are to these: a cosine; 1 means identical."""


class BaselineList(TypedDict):
    """The baselines of a customer. Its usage is compared with them."""

    customer: str
    """The customer, by name."""
    built_at: str | None
    """The time when the oldest baseline was computed; null without any."""
    baselines: list[MeterBaseline]
    """The baselines by meter. A meter gets one after three weeks of usage."""


class CheckHandlers(Handlers):
    """Handlers of checks and baselines."""

    @post("/v1/checks", roles=SUPPORT, rate=RequestRate(6, "customer"))
    async def run_checks(self, call: Call[Query, Nothing]) -> CheckResult:
        """Judge the usage of completed hours and days, and compare this hour's spending with the usual, now."""
        settings, now = self._settings, time.time()
        result: CheckResult = {"usage": "off", "spending": "off", "alerted": []}
        if settings.anomalies.enabled:
            is_standby = await AnomalyJob(self._database, settings).step(now) is STANDBY
            result["usage"] = "standby" if is_standby else "run"
        billing = settings.billing
        if billing is not None and billing.mode != "off" and billing.breaker.enabled:
            breaker = SpendBreaker(self._database, lambda: settings)
            result["alerted"] = await breaker.step(now, needs_second_look=False)
            result["spending"] = "run"
        after = {**result, "alerted": len(result["alerted"])}  # The alerts name the customers.
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("checks.run", "checks", None, after))
        return result

    @get("/v1/customers/{customer}/baselines", roles=READERS)
    async def list_baselines(self, call: Call[Query, Nothing]) -> BaselineList:
        """List the baselines of a customer. Its usage is compared with them."""
        async with self._database.reading(whole=True) as connection:
            name = (await customers.get_row(connection, call.path("customer"))).name
            baselines = await store.fetch_baselines(connection, [name])
            built_at = (await store.fetch_build_times(connection, [name])).get(name)
        rows = [to_meter_baseline(meter, baseline) for (_, meter), baseline in sorted(baselines.items())]
        with reading_row(anomaly_baselines.name, name):
            built = None if built_at is None else format_timestamp(built_at * 1000)
        return {"customer": name, "built_at": built, "baselines": rows}


def to_meter_baseline(meter: str, baseline: Baseline) -> MeterBaseline:
    """Return a baseline in the API's form: square roots are converted to units."""
    return {
        "meter": meter,
        "hours": [round(unroot(middle), 2) for middle in baseline.middles],
        "days": [round(unroot(day), 2) for day in baseline.days],
        "likeness": round(baseline.likeness, 4),
    }


GROUP = Group("checks", "Checks of usage and spending that an operator runs now, and their baselines.", CheckHandlers)
