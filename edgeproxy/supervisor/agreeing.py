"""Agreeing with other hosts on limits: what workers use is told to the hub, what others use is written into the map.

A worker says which rows it uses; the rest is read from the map (sync/shared.py, sync/totals.py). Nobody waits for the
hub: reports go out when they are due, answers are written when they come. Each supervisor does so for its own workers;
where two of them tell of the same row, as during an upgrade, they tell of the same counts.
"""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

from edgeproxy import log
from edgeproxy.clock import EPOCH
from edgeproxy.config import models
from edgeproxy.counters import layout as at
from edgeproxy.counters.file import TableError
from edgeproxy.counters.rows import LimitTable
from edgeproxy.counters.setup import file_name
from edgeproxy.counters.store import Store
from edgeproxy.supervisor.exposition import Series
from edgeproxy.sync.hub import Hub
from edgeproxy.sync.plan import Terms
from edgeproxy.sync.redis import Tls
from edgeproxy.sync.report import GaugeTold, Period, PeriodTold, Report, Told
from edgeproxy.sync.shared import Row, Shared, Use
from edgeproxy.sync.totals import Total, Totals
from edgeproxy.tasks import Tasks

TURN = 0.002
"""Seconds between two rounds of reports at least: what is due meanwhile goes out together."""
LONGEST = 1.0
"""Seconds between two looks at what is due at most."""
MOST = 500
"""Reports of one table in a round, so that the admin listener has its turn."""
CATCHING_UP = 0.010
"""Seconds by which the edge's clock is moved in a second."""
JUMP = 5.0
"""Seconds from which on the hub's clock is followed at once."""

Message = dict[str, Any]
Key = tuple[str, int]
"""The name of a table, and the number of its file."""


class Known(NamedTuple):
    """The rows of a table that are in use."""

    table: LimitTable
    rates: Shared
    totals: Totals


class Agreeing:
    """One supervisor's part in it. `tell` sends all of its workers a message."""

    def __init__(self, store: Store, settings: models.Hub, tell: Callable[[Message], None]) -> None:
        self._store = store
        self._settings = settings
        self._tell = tell
        self._log = log.get()
        self._tables: dict[Key, Known] = {}
        self._seqs = itertools.count(store.start << 32)
        self._wake = asyncio.Event()
        self._is_heard = False
        self._clock_set = False
        self._errors = 0
        self._tasks = Tasks()
        self._hub = self._connected(settings)
        if settings.is_exposed:
            self._log.warning("the hub's password can be read on the way", hub=settings.name)
        for name, table in store.limits.items():
            self._table(name, table.file.generation)

    def _connected(self, settings: models.Hub) -> Hub:
        tls = settings.tls
        ca, cert, key = [None if file is None else str(file) for file in (tls.ca, tls.cert, tls.key)]
        return Hub(settings.url, self._store.control.instance, self._changed, Tls(ca, cert, key, tls.verify))

    # ---- its life

    def begin(self) -> None:
        """Reach the hub, and agree from here on."""
        self._tasks.start("agreeing", self._run())
        self._tasks.start("the hub's clock", self._follow_clock())
        self._running = self._tasks.start("hub", self._hub.run())

    async def follow(self, settings: models.Hub) -> None:
        """Another configuration serves."""
        if settings == self._settings:
            return
        before, self._settings = self._settings, settings
        for known in self._tables.values():
            known.rates.tick = settings.sync
        if (before.url, before.tls) != (settings.url, settings.tls):
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            await self._hub.close()
            self._errors += self._hub.errors
            self._hub = self._connected(settings)
            self._changed()
            self._running = self._tasks.start("hub", self._hub.run())

    async def end(self) -> None:
        """Agree no more."""
        await self._tasks.cancel()
        await self._hub.close()

    # ---- what workers say

    def uses(self, message: Message) -> None:
        """A worker uses rows of limits (proxy/asking.py)."""
        now = self._now()
        for name, file, row, generation, limit, span, cells, depth, rate, mode, refused in message["rates"]:
            known = self._table(name, file)
            if known is not None:
                terms = Terms(limit, span, cells, depth, rate, mode)
                known.rates.use(Use(row, generation, terms, bool(refused)), now)
        for name, file, row, generation, limit in message["totals"]:
            known = self._table(name, file)
            if known is not None:
                known.totals.use(row, generation, limit, now)
        if not self._hub.is_up:
            self._lost(now)
        self._wake.set()

    def _table(self, name: str, file: int) -> Known | None:
        """What is known of a table; None where it has no column for the hub, or is gone."""
        known = self._tables.get((name, file))
        if known is None:
            table = self._store.limits[name]
            try:
                if table.file.generation != file:
                    table = LimitTable(self._store.file(file_name(name, file), name))
            except TableError:
                return None
            if table.layout.hub is None:
                return None
            instance = self._store.control.instance
            known = self._tables[name, file] = Known(table, Shared(table, instance), Totals(table, instance))
            known.rates.tick = self._settings.sync
            self._say_hosts(known)
        return known

    # ---- the hub

    def _say_hosts(self, known: Known) -> None:
        hub = self._hub
        known.table.words[at.HOSTS] = hub.hosts | (0 if hub.is_up else at.AWAY)
        known.rates.hosts = known.totals.hosts = hub.hosts
        known.rates.rtt = hub.rtt

    def _changed(self) -> None:
        """The hub was lost or reached, or knows of more or fewer hosts."""
        now = self._now()
        for known in self._tables.values():
            self._say_hosts(known)
            if self._hub.is_up:
                known.rates.found(now)
                known.totals.found(now)
        if not self._hub.is_up:
            self._clock_set = False
            self._lost(now)
            self._tell_heard()
        self._wake.set()

    def _lost(self, now: float) -> None:
        for known in self._tables.values():
            known.rates.lost(now, self._settings.on_loss)
            known.totals.lost(now, self._settings.on_loss)

    async def _run(self) -> None:
        """For ever, tell the hub what is due; while it is away, hold this host to its part."""
        while True:
            self._wake.clear()
            now = self._now()
            if self._hub.is_up:
                self._report(now)
            else:
                self._lost(now)
            await asyncio.sleep(TURN)
            pause = LONGEST
            if self._hub.is_up:
                kinds = [kind.due() for known in self._tables.values() for kind in (known.rates, known.totals)]
                pause = min([LONGEST, *[moment - self._now() for moment in kinds if moment is not None]])
            if pause > 0:
                try:
                    await asyncio.wait_for(self._wake.wait(), pause)
                except TimeoutError:
                    pass

    def _report(self, now: float) -> None:
        for known in self._tables.values():
            known.rates.rtt = self._hub.rtt
            for row, report in known.rates.reports(now, self._seqs, MOST):
                self._hub.rate(report).add_done_callback(partial(self._rate_answered, known.rates, row, report))
            for total, said in known.totals.reports(now, MOST):
                answered = partial(self._total_answered, known.totals, total)
                if isinstance(said, Period):
                    self._hub.period(said).add_done_callback(answered)
                else:
                    self._hub.gauge(said).add_done_callback(answered)

    def _rate_answered(self, rates: Shared, row: Row, report: Report, answer: "asyncio.Future[Told]") -> None:
        if answer.exception() is not None:
            rates.away(row, self._now(), self._settings.on_loss)
        else:
            rates.answer(row, self._now(), report.seq, answer.result())
        self._wake.set()
        if not self._is_heard:
            self._is_heard = True
            asyncio.get_running_loop().call_soon(self._tell_heard)

    def _total_answered(
        self, totals: Totals, total: Total, answer: "asyncio.Future[PeriodTold] | asyncio.Future[GaugeTold]"
    ) -> None:
        if answer.exception() is None:
            totals.answer(total, self._now(), answer.result())

    def _tell_heard(self) -> None:
        """Workers with requests that wait look again."""
        self._is_heard = False
        self._tell({"type": "heard"})

    # ---- the clock

    def _now(self) -> float:
        return monotonic() + self._store.offset

    async def _follow_clock(self) -> None:
        """Every second, move the edge's clock towards the hub's; far from it, at once."""
        while True:
            await asyncio.sleep(LONGEST)
            there = self._hub.offset
            if there is None or not self._store.identity.held:
                continue
            here, wanted = self._store.offset, max(0.0, there - EPOCH)
            away = wanted - here
            if abs(away) > JUMP:
                self._log.warning("the edge's clock follows the hub's", seconds=round(away, 3))
            elif self._clock_set:
                away = max(-CATCHING_UP * LONGEST, min(CATCHING_UP * LONGEST, away))
            self._clock_set = True
            self._store.control.move(here + away)

    # ---- for those who look

    def report(self) -> dict[str, Any]:
        """What `GET /status` says of it."""
        hub = self._hub
        age = round(monotonic() - hub.heard_at, 3) if hub.heard_at else None
        said = {"url": hub.name, "state": "up" if hub.is_up else "away", "age_s": age, "hosts": hub.hosts}
        return said if hub.why is None else said | {"why": hub.why}

    def series(self) -> list[Series]:
        """Its metrics."""
        hub = self._hub
        age = monotonic() - hub.heard_at if hub.heard_at else 0.0
        return [
            ("edge_hub_up", (), (int(hub.is_up),)),
            ("edge_hub_errors_total", (), (self._errors + hub.errors,)),
            ("edge_hub_hosts", (), (hub.hosts,)),
            ("edge_limit_sync_age_seconds", (), (round(age),)),
            ("edge_limits_shared", (), (sum(len(known.rates) + len(known.totals) for known in self._tables.values()),)),
        ]
