"""Accounting seals what workers count into batches and ships them, in the supervisor that holds the identity lock.

A failure here costs no request and no count: counts stay in the tables, batches in the spool, and the next turn tries
again. The failure is in the log once, and in `GET /status` and the metrics for as long as it lasts.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks, run_in_thread
from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.shipping import Shipping
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.usage import identity, seal
from edgeproxy.edge.usage.answer import RESULTS, Reply
from edgeproxy.edge.usage.audit import sum_unshipped
from edgeproxy.edge.usage.identity import SPOOL
from edgeproxy.edge.usage.seal import Sealer
from edgeproxy.edge.usage.ship import ShippingStatus
from edgeproxy.edge.usage.spool import BrokenSpoolError, Pending, fetch_watermark, list_segments
from edgeproxy.wire.key_uses import KeysUsed
from edgeproxy.wire.traffic_report import TrafficReport

RETRY_SECONDS, IDLE_SEAL_SECONDS = 1.0, 60.0
"""Seconds between two attempts to acquire the identity lock; and between two turns where nothing is to be sealed."""
LAST_SHIPPING_SECONDS = 5.0
"""Seconds for shipping at the end. A batch that has not arrived by then waits in the spool for the next start."""
LAST_SEAL_SECONDS = 10.0
"""Seconds for the last seal at the end. Counts that the disk has not taken by then stay in the tables."""
READ_BYTES_MAX = 8 << 20
"""Bytes of the spool that are read at most to sum the unshipped units by meter."""
SLOW_SEAL_SECONDS = 10.0
"""Seconds of waiting for the disk after which the wait is reported as a problem."""
OTHER = "another supervisor tends this state directory; this one seals and ships once that has ended"
NUMBER = re.compile(r"[0-9]+")
"""Numbers in a message: two messages that differ by numbers alone are the same news."""


class SealingProblem(NamedTuple):
    """The reason why sealing fails or is degraded, and its start in Unix seconds."""

    why: str
    since: float


class DiskFacts(NamedTuple):
    """The state of the spool on disk: its bytes, the last acknowledged batch, and the spools that were set aside."""

    spool_bytes: int
    watermark: int
    aside: tuple[str, ...]


class Accounting:
    """The accounting of one supervisor. `begin` runs before workers start, `end` after they have left."""

    def __init__(
        self,
        store: Store,
        table_reader: TableReader,
        region: str,
        usage: Usage | None,
        sync_age: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`sync_age` returns the seconds since the edge agreed with the hub; None where no limits are shared."""
        self._store = store
        self._sync_age = sync_age
        self._table_reader = table_reader
        self._region = region
        self._usage = usage
        self.keys_used = KeysUsed()
        """The keys that were used today; they are sent to the collector with the next batch."""
        self._sealer: Sealer | None = None
        self._shipping: Shipping | None = None
        self._problem: SealingProblem | None = None
        self._facts = DiskFacts(0, 0, ())
        self._off_since = time.time()
        """Unix second since which shipping is off."""
        self._waiting_since: float | None = None
        """Monotonic moment since which the disk is waited for; None while nothing is written."""
        self._ending = False
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None
        self._log = log.get_logger()

    # ---- its life

    async def begin(self) -> None:
        """Recover what a crash left, then seal and ship where no other supervisor does."""
        await self._attempt(self._first)
        self._running = self._tasks.start("accounting", self._run())

    def follow(self, usage: Usage | None) -> None:
        """Apply the usage settings of another configuration."""
        if usage != self._usage:
            self._usage = usage
            self._wake.set()

    def renew(self) -> None:
        """Ship over a new connection, as certificates have changed."""
        if self._shipping is not None:
            self._shipping.renew()

    async def send_traffic(self, report: TrafficReport) -> Reply | None:
        """Send a report of traffic; None where this supervisor ships nothing. Raises OSError where nobody answers."""
        if self._sealer is None or self._shipping is None:
            return None
        return await self._shipping.send_traffic(self._sealer.identity.id, report)

    async def end(self) -> None:
        """Seal the last counts and ship for a few seconds."""
        self._ending = True
        self._wake.set()
        if self._running is not None:
            _, late = await asyncio.wait([self._running], timeout=LAST_SEAL_SECONDS)
            if late:
                self._log.error("the disk does not take what was counted last; it stays in the tables")
        if self._shipping is not None:
            if not await self._shipping.finish(LAST_SHIPPING_SECONDS):
                left = self._shipping.status.pending
                self._log.warning("batches wait for the next start", batches=left.batches, units=left.values)
            await self._shipping.end()
            self._shipping = None
        if self._running is not None and self._running.done():
            self._close()
        await self._tasks.cancel()

    async def _first(self) -> tuple[str, ...]:
        if self._usage is not None:
            self._store.identity.try_acquire()
        return await self._open()

    async def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._ending
            await self._attempt(self._run_turn)
            if not self._ending:
                await self._pause()

    async def _pause(self) -> None:
        usage, seconds = self._usage, IDLE_SEAL_SECONDS
        if usage is not None:
            seconds = RETRY_SECONDS if self._sealer is None else seal.seconds_until_seal(time.time(), usage.every)
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass
        self._wake.clear()

    # ---- a turn

    async def _run_turn(self) -> tuple[str, ...]:
        """Open what the settings need, seal, and return the faults that were met."""
        faults = await self._open()
        if self._sealer is not None:
            faults = await self._seal(self._sealer)
        return faults

    async def _open(self) -> tuple[str, ...]:
        """Open and close the sealer and shipping as the settings and the identity lock demand. Returns no faults."""
        usage = self._usage
        if self._shipping is not None and self._shipping.usage != usage:
            shipping, self._shipping = self._shipping, None
            await shipping.end()
            self._off_since = time.time()
        if usage is None:
            self._close()
        elif self._sealer is None and self._store.identity.held:
            self._sealer = await self._table_reader.run_exclusively(
                partial(Sealer.open, self._store, self._region, time.time())
            )
            self._log_opened(self._sealer)
        if usage is not None and self._sealer is not None and self._shipping is None:
            self._shipping = Shipping(self._sealer.spool, usage, self.keys_used, self._sync_age)
            self._log.info("usage is shipped", edge=self._sealer.identity.id, collector=usage.collector)
            if usage.is_exposed:
                self._log.warning("the collector's token can be read by all on the way", collector=usage.collector)
        return ()

    def _close(self) -> None:
        if self._sealer is not None:
            self._sealer.close()
            self._sealer = None

    def _log_opened(self, sealer: Sealer) -> None:
        last = sealer.spool.last
        self._log.info("usage is sealed", edge=sealer.identity.id, batch=0 if last is None else last.seq)
        for place in sealer.spool.damage:
            self._log.error("the spool is damaged", where=str(place))
        if sealer.aside is not None:
            why = "its end cannot be read; this edge goes on under a new identity"
            self._log.error("the spool was set aside", aside=str(sealer.aside), why=why)

    async def _seal(self, sealer: Sealer) -> tuple[str, ...]:
        """Seal what has grown since the last seal, and return faults of the tables. The tables are locked only while
        they are read or marked, not while the disk is written.
        """
        alone = self._table_reader.run_exclusively
        growth = await alone(partial(sealer.find_growth, time.time()))
        for part in growth.parts:
            self._waiting_since = time.monotonic()
            batch = await run_in_thread("seal", partial(sealer.append_batch, part, growth.until))
            self._waiting_since = None
            if self._shipping is not None:
                self._shipping.sealed()
            await alone(partial(sealer.write_marks, part, batch))
        await alone(partial(sealer.record_sealed, growth))
        return growth.faults

    async def _attempt(self, work: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
        """Run one step and record its outcome. Never raises."""
        try:
            faults = await work()
        except (OSError, BrokenSpoolError, identity.IdentityError) as error:
            self._record_outcome(_describe_error(error))
        except Exception as error:
            self._record_outcome(f"the supervisor failed: {error!r}", error)
        else:
            self._record_outcome("; ".join(faults))
        self._waiting_since = None
        try:
            self._facts = await run_in_thread("look at the spool", partial(fetch_disk_facts, self._store))
        except OSError:
            pass  # It says how things were when they could last be seen.

    def _record_outcome(self, why: str, unforeseen: Exception | None = None) -> None:
        """Log a problem when it is new, and log its end."""
        before = self._problem
        if not why:
            self._problem = None
            if before is not None:
                self._log.info("sealing is well again", seconds=round(time.time() - before.since, 1))
            return
        self._problem = SealingProblem(why, time.time() if before is None else before.since)
        if before is None or NUMBER.sub("", before.why) != NUMBER.sub("", why):
            self._log.error("sealing is not well; what is counted stays in the tables", why=why, exc_info=unforeseen)

    # ---- what is known

    async def report(self) -> JsonObject:
        """Return the field `usage` of `GET /status`."""
        status, trouble, facts = self._shipping_status(), self._sealing_problem(), self._facts
        units, oldest = await self._unshipped(status.pending)
        sealer = self._sealer
        return {
            "unshipped": units,
            "unshipped_by_meter": await self._unshipped_by_meter(status.pending),
            "oldest_s": oldest,
            "batches": status.pending.batches,
            "edge": None if sealer is None else sealer.identity.id,
            "watermark": (facts.watermark or None) if sealer is None else sealer.spool.watermark,
            "spool_bytes": facts.spool_bytes,
            "shipping": {"state": status.state, "why": status.why, "since": status.since},
            "sealing": None if trouble is None else trouble._asdict(),
            "aside": list(facts.aside),
        }

    async def series(self) -> list[Series]:
        """Return the metrics of unshipped usage. Counters begin at zero with each supervisor."""
        status, facts, sealer = self._shipping_status(), self._facts, self._sealer
        units, oldest = await self._unshipped(status.pending)
        return [
            ("edge_usage_unshipped", (), (units,)),
            ("edge_usage_unshipped_seconds", (), (oldest,)),
            ("edge_usage_spool_bytes", (), (facts.spool_bytes,)),
            ("edge_usage_watermark", (), (facts.watermark if sealer is None else sealer.spool.watermark,)),
            ("edge_usage_shipping_ok", (), (int(status.state != "stopped"),)),
            ("edge_usage_sealing_ok", (), (int(self._sealing_problem() is None),)),
            ("edge_usage_aside", (), (len(facts.aside),)),
            *(("edge_usage_batches_total", (result,), (count,)) for result, count in status.results.items()),
        ]

    def _shipping_status(self) -> ShippingStatus:
        """Return the status of shipping, also where shipping is off or done elsewhere."""
        if self._shipping is not None:
            return self._shipping.status
        state, why = "off", ""
        if self._usage is not None:
            trouble = self._problem
            state, why = ("elsewhere", OTHER) if trouble is None else ("stopped", trouble.why)
        return ShippingStatus(state, why, self._off_since, dict.fromkeys(RESULTS, 0), Pending(0, 0, None))

    def _sealing_problem(self) -> SealingProblem | None:
        """Return why nothing is sealed; None where all is well."""
        waited = 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since
        if self._problem is None and waited > SLOW_SEAL_SECONDS:
            return SealingProblem(f"the disk has not answered for {waited:.0f} s", time.time() - waited)
        return self._problem

    async def _unshipped(self, pending: Pending) -> tuple[int, int]:
        """Return the units that the collector has not acknowledged, and the age of the oldest in seconds.

        A batch that is being sealed at this moment may be counted twice.
        """
        if self._usage is None:
            return sum((await self._table_reader.meters()).values()), 0
        by_meter, until = await self._table_reader.unsealed()
        unsealed = sum(by_meter.values())
        since = [moment for moment, units in ((pending.since, pending.values), (until, unsealed)) if moment and units]
        return pending.values + unsealed, max(0, int(time.time() - min(since))) if since else 0

    async def _unshipped_by_meter(self, pending: Pending) -> dict[str, int] | None:
        """Return the unacknowledged units by meter; None where the spool is too large to be read for this."""
        if self._usage is None:
            return await self._table_reader.meters()
        sums, _ = await self._table_reader.unsealed()
        sealed: dict[str, int] | None = {}
        if pending.batches:
            spool = self._store.state / SPOOL
            try:
                sealed = await run_in_thread("read the spool", lambda: sum_unshipped(spool, READ_BYTES_MAX))
            except OSError:
                sealed = None
        if sealed is None:
            return None
        return {meter: sums.get(meter, 0) + sealed.get(meter, 0) for meter in sorted({*sums, *sealed})}


def fetch_disk_facts(store: Store) -> DiskFacts:
    """Read the state of the spool. Raises OSError."""
    folder = store.state / SPOOL
    taken = sum(path.stat().st_size for path in list_segments(folder))
    return DiskFacts(taken, fetch_watermark(folder), tuple(path.name for path in identity.list_set_aside(store.state)))


def _describe_error(failure: Exception) -> str:
    """Describe an error for a person: an OSError by its file and text, without its number."""
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return str(failure) or type(failure).__name__
