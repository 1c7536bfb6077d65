"""The job that judges usage every hour and every day, and rebuilds baselines every week.

One collector runs it at a time. A finding and its alert are written in one transaction, and the progress afterwards. If
a collector is killed, the next one repeats its findings, but raises no alert twice.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace

from edgeproxy.base import log
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.accounts.states import CustomerState, compute_customer_state
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.anomalies.baseline import DAY, HOUR, WEEK, WEEKS, Baseline, Hours
from edgeproxy.collector.anomalies.estimates import build_estimates_alert, fetch_estimated_units
from edgeproxy.collector.anomalies.judgement import Finding, judge_day, judge_hour, judge_pause, start_of_day
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat, run_exclusively
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.config.collector.anomalies import Thresholds
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.wire.batch import ANONYMOUS

LOCK = "anomalies"
POLL_SECONDS = 60.0
"""Seconds between two checks for due work."""
GRACE_SECONDS = 900
"""Seconds from the end of an hour or a day to its judgement. Most late usage arrives by then."""
HOURS_BEHIND_MAX, DAYS_BEHIND_MAX = 24, 7
"""The most hours and days judged after a time without a collector."""
ACTOR = "anomalies"
"""The actor of pauses in the audit log."""
WHY_PAUSED = "unusual usage: please contact us"
NOT_HERE_REASON = "no API has the customer, so pause it in its file"

Judge = Callable[[Baseline, Hours, int, Thresholds], Finding | None]
"""A function of judgement.py that judges an hour by a baseline and the hours before it."""


class AnomalyJob:
    """Judges usage until it is cancelled."""

    def __init__(self, database: Database, settings: CollectorSettings) -> None:
        self._database = database
        self._settings = settings
        self._cursor = ""
        """The last customer whose baselines were rebuilt this week."""
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    def use(self, settings: CollectorSettings) -> None:
        """Use these settings from now on."""
        self._settings = settings

    async def run(self) -> None:
        """Do due work every minute."""
        failed = "usage was not looked at, and is later"
        job = Job("anomalies", POLL_SECONDS, failed, lambda: self.step(time.time()), lock=LOCK)
        await repeat(job, self._limited_log)

    async def step(self, now: float) -> object:
        """Do due work, or return STANDBY if another collector does it."""
        if not self._settings.anomalies.enabled:
            return None
        return await run_exclusively(self._database, LOCK, lambda: self._run_due(now))

    async def _run_due(self, now: float) -> None:
        await self._rebuild_baselines(now)
        async with self._database.reading() as connection:
            progress = await store.fetch_progress(connection)
        await self._judge_hours(now, progress.get("hours"))
        await self._judge_days(now, progress.get("days"))
        await self._judge_open_hour(now)

    # ---- baselines

    async def _rebuild_baselines(self, now: float) -> None:
        """Rebuild baselines that are a week old, and build baselines of new customers."""
        today = start_of_day(int(now))
        async with self._database.reading() as connection:
            if (await store.fetch_progress(connection)).get("baselines", 0) >= today:
                return
            names = await store.list_customers(connection, self._cursor)
            built = await store.fetch_build_times(connection, names)
        for name in names:
            if built.get(name, 0) <= today - WEEK and name != ANONYMOUS:
                await self._rebuild_customer(name, today)
        self._cursor = names[-1] if names else ""
        if not names:
            async with self._database.writing() as connection:
                await store.record_progress(connection, "baselines", today)
                await store.delete_expired(connection, int(now))

    async def _rebuild_customer(self, customer: str, today: int) -> None:
        async with self._database.reading(whole=True) as connection:
            usage = await store.fetch_usage(connection, today - WEEKS * WEEK, today, (customer,))
        baselines = {meter: Baseline.compute(hours, today) for (_, meter), hours in usage.items()}
        async with self._database.writing() as connection:
            await store.replace_baselines(connection, customer, baselines, today)

    # ---- judgements

    async def _judge_hours(self, now: float, since: int | None) -> None:
        """Judge completed hours."""
        until = int(now - GRACE_SECONDS) // HOUR * HOUR
        oldest = until - (HOUR if since is None else HOURS_BEHIND_MAX * HOUR)
        for hour in range(max(since or 0, oldest), until, HOUR):
            async with aclosing(self._stream_findings(hour - HOUR, hour, judge_hour)) as findings:
                async for customer, meter, finding in findings:
                    await self._record_finding(customer, meter, finding, now)
            await self._record_progress("hours", hour + HOUR)

    async def _stream_findings(
        self, since: int, hour: int, judge: Judge
    ) -> AsyncGenerator[tuple[str, str, Finding], None]:
        """Yield the findings of an hour with customer and meter, based on usage since `since`."""
        async with (
            self._database.reading(whole=True) as connection,
            aclosing(store.stream_usage(connection, since, hour + HOUR)) as batches,
        ):
            async for used in batches:
                usual = await store.fetch_baselines(connection, (customer for customer, _ in used))
                for (customer, meter), baseline in sorted(usual.items()):
                    thresholds = self._settings.anomalies.find_thresholds(customer)
                    if thresholds is None:
                        continue
                    finding = judge(baseline, used.get((customer, meter), {}), hour, thresholds)
                    if finding is not None:
                        yield customer, meter, finding

    async def _judge_days(self, now: float, since: int | None) -> None:
        """Judge completed days, including customers without usage."""
        until = start_of_day(int(now - GRACE_SECONDS))
        earliest = until - (DAY if since is None else DAYS_BEHIND_MAX * DAY)
        for day in range(max(since or 0, earliest), until, DAY):
            name = ""
            while True:
                async with self._database.reading() as connection:
                    names = await store.list_customers(connection, name)
                    usual = await store.fetch_baselines(connection, names)
                if not names:
                    break
                async with self._database.reading(whole=True) as connection:
                    used = await store.fetch_usage(connection, day, day + DAY, {customer for customer, _ in usual})
                await self._judge_day(usual, used, day, now)
                name = names[-1]
            await self._judge_estimates(day, now)
            await self._record_progress("days", day + DAY)

    async def _judge_estimates(self, day: int, now: float) -> None:
        """Raise an alert for each customer whose units of a day were largely estimated."""
        share = self._settings.anomalies.estimates
        if share is None:
            return
        async with self._database.reading(whole=True) as connection:
            uses = await fetch_estimated_units(connection, day, day + DAY, share)
        for use in uses:
            if self._settings.anomalies.find_thresholds(use.customer) is not None:
                async with self._database.writing() as connection:
                    await raise_once(connection, build_estimates_alert(use, day, now))

    async def _judge_day(
        self, usual: Mapping[tuple[str, str], Baseline], used: store.HourlyUsage, day: int, now: float
    ) -> None:
        """Judge a day of some customers by their baselines."""
        for (customer, meter), baseline in sorted(usual.items()):
            thresholds = self._settings.anomalies.find_thresholds(customer)
            if thresholds is None:
                continue
            finding = judge_day(baseline, used.get((customer, meter), {}), day, thresholds)
            if finding is not None:
                await self._record_finding(customer, meter, finding, now)

    async def _judge_open_hour(self, now: float) -> None:
        """Pause customers with far too much usage in the current hour, if `pause` is configured."""
        anomalies = self._settings.anomalies
        if anomalies.pause is None and not any(
            overrides.pause is not None for overrides in anomalies.customers.values()
        ):
            return
        hour = int(now) // HOUR * HOUR
        async with aclosing(self._stream_findings(hour, hour, judge_pause)) as findings:
            async for customer, meter, finding in findings:
                await self._pause_customer(customer, meter, finding, now)

    async def _record_progress(self, name: str, until: int) -> None:
        async with self._database.writing() as connection:
            await store.record_progress(connection, name, until)

    # ---- consequences

    async def _record_finding(self, customer: str, meter: str, finding: Finding, now: float) -> None:
        """Write a finding and its alert. A customer gets one alert a day, and another if the severity rises."""
        day, keep = start_of_day(finding.at), self._settings.anomalies.keep
        async with self._database.writing() as connection:
            merged = await store.record_finding(connection, customer, meter, day, finding, int(now), keep)
            if merged is not None:
                await raise_once(connection, build_alert(customer, meter, merged, now))

    async def _pause_customer(self, customer: str, meter: str, finding: Finding, now: float) -> None:
        """Pause a customer at most once a day, so that an operator's resumption is not undone."""
        try:
            async with self._database.writing() as connection:
                row = await customers.find_row(connection, customer, lock=True)
                if row is not None and compute_customer_state(row) is not CustomerState.ACTIVE:
                    return
                alert = build_pause_alert(
                    customer, meter, finding, now, why_not=None if row is not None else NOT_HERE_REASON
                )
                if await raise_once(connection, alert) and row is not None:
                    change = UpdateCustomerRequest.model_validate({"paused": {"why": WHY_PAUSED, "status": "403"}})
                    await customers.update_customer(connection, Caller(ACTOR), customer, change, self._settings)
                    self._log.warning("a customer was paused", customer=customer, meter=meter, value=finding.value)
        except ChangeRejectedError as error:  # Others are paused anyway. This one is tried again.
            why = "; ".join([error.why, *map(str, error.faults)])
            alert = build_pause_alert(customer, meter, finding, now, why_not=why)
            async with self._database.writing() as connection:
                await raise_once(connection, replace(alert, key=f"failed-{alert.key}"))


def build_alert(customer: str, meter: str, finding: Finding, now: float) -> Alert:
    """Return the alert of a finding. Pure."""
    what = f"{'more' if finding.is_more else 'less'} {meter} than usual"
    if finding.kind == "pattern":
        what = f"{meter} at other hours than usual"
    return Alert(
        key=f"anomaly:{customer}:{format_time(start_of_day(finding.at))[:10]}:{finding.severity}",
        kind=AlertKind.USAGE_ANOMALY,
        severity=finding.severity,
        customer=customer,
        title=f"{customer} has used {what}: {finding.value} in place of {finding.expected:.0f}",
        details={"meter": meter, "at": format_time(finding.at), **finding.details},
        at=now,
    )


def build_pause_alert(customer: str, meter: str, finding: Finding, now: float, *, why_not: str | None = None) -> Alert:
    """Return the alert for a paused customer, or for one that could not be paused, with the reason. Pure."""
    times = finding.value / max(finding.expected, 1.0)
    done = "and is paused" if why_not is None else f"and cannot be paused here: {why_not}"
    return Alert(
        key=f"pause:{customer}:{format_time(start_of_day(finding.at))[:10]}",
        kind=AlertKind.CUSTOMER_PAUSED if why_not is None else AlertKind.CUSTOMER_PAUSE_FAILED,
        customer=customer if why_not is None else None,
        title=f"{customer} has used {times:.1f} times as much {meter} as usual in an hour, {done}",
        details={"meter": meter, "at": format_time(finding.at), **finding.details}
        | ({} if why_not is None else {"of": customer, "why": why_not}),
        at=now,
    )
