"""The known names of customers and meters, and unknown names that have usage.

Usage of an unknown name is stored like any other. Each unknown name is logged once, counted in a metric, and listed in
responses about usage.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.config.meters import OVER_CAP
from edgeproxy.wire.batch import ANONYMOUS

REFRESH_SECONDS = 60.0
"""Seconds between two checks whether unknown names have become known."""
ALERT_SECONDS = 300.0
"""A customer is unknown for this many seconds before an alert: it may be created just after its first usage."""
REMEMBERED_MAX = 10_000
"""The most unknown names of each kind to remember."""
NAMES_LOGGED_MAX = 5
"""The most names in one log line."""

FindCustomers = Callable[[Iterable[str]], Awaitable[set[str]]]
"""Returns the names among these that belong to customers in the database. It must not raise."""


async def find_no_customers(_: Iterable[str]) -> set[str]:
    """Return no names: without a database, only the configuration has customers."""
    return set()


RaiseAlert = Callable[[Alert], Awaitable[None]]


async def raise_no_alert(_: Alert) -> None:
    """Raise no alert."""


class NamesMetrics(Protocol):
    """The metric of unknown names."""

    def unknown_names(self, kind: str, count: int) -> None:
        """Set the number of unknown names of a kind, `customer` or `meter`."""


class KnownNames:
    """The names in the configuration, and the unknown names seen, by kind: `customer` or `meter`.

    `find_customers` looks up customers that the configuration lacks.
    """

    def __init__(
        self,
        customers: Iterable[str],
        meters: Iterable[str],
        metrics: NamesMetrics,
        find_customers: FindCustomers = find_no_customers,
        raise_alert: RaiseAlert = raise_no_alert,
    ) -> None:
        self._find_customers = find_customers
        self._raise_alert = raise_alert
        self._alert_at: dict[str, float] = {}
        """The monotonic time when each unknown customer raises an alert."""
        self._known: dict[str, frozenset[str]] = {}
        self._unknown: dict[str, set[str]] = {"customer": set(), "meter": set()}
        self._metrics = metrics
        self._log = log.get_logger()
        self.set_known(customers, meters)

    def set_known(self, customers: Iterable[str], meters: Iterable[str]) -> None:
        """Replace the names of the configuration. Names in it are no longer unknown."""
        self._known = {"customer": frozenset((*customers, ANONYMOUS)), "meter": frozenset((*meters, OVER_CAP))}
        for kind, unknown in self._unknown.items():
            unknown.difference_update(self._known[kind])
            self._metrics.unknown_names(kind, len(unknown))

    async def record_names(self, customers: Iterable[str], meters: Iterable[str]) -> None:
        """Record the names of new usage. An unknown name is logged the first time."""
        for kind, names in (("customer", customers), ("meter", meters)):
            unknown = self._unknown[kind]
            missing = set(names) - self._known[kind] - unknown
            if kind == "customer" and missing:
                missing -= await self._find_customers(missing)
            new = sorted(missing)[: REMEMBERED_MAX - len(unknown)]
            if new:
                unknown.update(new)
                if kind == "customer":
                    self._alert_at |= dict.fromkeys(new, time.monotonic() + ALERT_SECONDS)
                self._metrics.unknown_names(kind, len(unknown))
                details = {"kind": kind, "names": new[:NAMES_LOGGED_MAX], "more": max(0, len(new) - NAMES_LOGGED_MAX)}
                self._log.warning("usage of names that the configuration lacks", **details)

    async def refresh_unknown(self) -> None:
        """Forget the unknown customers that the database has by now."""
        unknown = self._unknown["customer"]
        if unknown:
            unknown -= await self._find_customers(list(unknown))
            self._metrics.unknown_names("customer", len(unknown))
        now = time.monotonic()
        due = sorted(name for name, at in self._alert_at.items() if at <= now and name in unknown)
        if due:
            await self._raise_alert(make_unknown_alert(due, time.time()))
        self._alert_at = {name: at for name, at in self._alert_at.items() if at > now and name in unknown}

    async def run(self) -> None:
        """Check periodically whether unknown names have become known, until cancelled."""
        job = Job("names", REFRESH_SECONDS, "customers could not be looked up", self.refresh_unknown)
        await repeat(job, log.RateLimitedLog(60.0))

    async def find_unknown(self, query: LedgerQuery, rows: Iterable[Mapping[str, object]]) -> dict[str, list[str]]:
        """Return the unknown names in a query and its rows, sorted, by kind, without empty kinds."""
        names_by_kind: dict[str, set[str]] = {"customer": set(), "meter": set()}
        for kind, requested in (("customer", query.customer), ("meter", query.meter)):
            if requested is not None:
                names_by_kind[kind].add(requested)
            if kind in query.by:
                names_by_kind[kind].update(str(row[kind]) for row in rows)
        unknown = {kind: names - self._known[kind] for kind, names in names_by_kind.items()}
        if unknown["customer"]:
            unknown["customer"] -= await self._find_customers(unknown["customer"])
        return {kind: sorted(names) for kind, names in unknown.items() if names}


def make_unknown_alert(names: Sequence[str], now: float) -> Alert:
    """Return the alert about usage of unknown customers, by name."""
    day = format_timestamp(round(now * 1000))[:10]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return Alert(
        key=f"customers_unknown:{names[0]}:{day}",
        kind=AlertKind.CUSTOMERS_UNKNOWN,
        title=f"usage is counted for {names[0]}{more}, whom nobody knows",
        details={"names": list(names[:NAMES_LOGGED_MAX]), "more": max(0, len(names) - NAMES_LOGGED_MAX)},
        at=now,
    )
