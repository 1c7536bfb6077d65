"""Accounting: what workers count is sealed into batches and shipped, by the supervisor that holds the identity lock.

What fails here costs no request and no count: counts stay in the tables, batches in the spool, and it is tried again.
It is in the log once, in `GET /status` and the metrics for as long as it lasts.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks, run_in_thread
from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.shipping import Shipping
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.usage import identity, seal
from edgeproxy.edge.usage.answer import RESULTS
from edgeproxy.edge.usage.audit import sum_unshipped
from edgeproxy.edge.usage.identity import SPOOL
from edgeproxy.edge.usage.seal import Sealer
from edgeproxy.edge.usage.ship import ShippingStatus
from edgeproxy.edge.usage.spool import BrokenSpoolError, Pending, fetch_watermark, list_segments
from edgeproxy.wire.key_uses import KeysUsed

RETRY_SECONDS, IDLE_SEAL_SECONDS = 1.0, 60.0
"""Seconds between two looks whether this supervisor may seal now, and, where nothing is to be sealed, at the disk."""
LAST_SHIPPING_SECONDS = 5.0
"""Seconds that shipping gets at the end; what has not arrived by then waits in the spool for the next start."""
LAST_SEAL_SECONDS = 10.0
"""Seconds that the disk gets at the end to take what was counted last; it stays in the tables otherwise."""
READ_BYTES_MAX = 8 << 20
"""Bytes of the spool that are read to say what waits by meter."""
SLOW_SEAL_SECONDS = 10.0
"""Seconds from which on it is told that the disk does not answer."""
OTHER = "another supervisor tends this state directory; this one seals and ships once that has ended"
NUMBER = re.compile(r"[0-9]+")
"""What may be another one each time that the same thing is told."""


class SealingProblem(NamedTuple):
    """Why nothing is sealed, or what is odd about it, and since when (Unix seconds)."""

    why: str
    since: float


class DiskFacts(NamedTuple):
    """What is on the disk: the bytes of the spool, the last batch that was acknowledged, what was set aside."""

    spool_bytes: int
    watermark: int
    aside: tuple[str, ...]


class Accounting:
    """One supervisor's part in it. `begin` before workers are started, `end` once they have left."""

    def __init__(
        self,
        store: Store,
        table_reader: TableReader,
        region: str,
        usage: Usage | None,
        sync_age: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`sync_age`: as `Shipping` has it."""
        self._store = store
        self._sync_age = sync_age
        self._table_reader = table_reader
        self._region = region
        self._usage = usage
        self.keys_used = KeysUsed()
        """The keys that were used today, of which the collector is to hear."""
        self._sealer: Sealer | None = None
        self._shipping: Shipping | None = None
        self._trouble: SealingProblem | None = None
        self._facts = DiskFacts(0, 0, ())
        self._since = time.time()
        """Since when there is no shipping, where there is none."""
        self._waits: float | None = None
        """Since when the disk is waited for (monotonic)."""
        self._ending = False
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None
        self._log = log.get_logger()

    # ---- its life

    async def begin(self) -> None:
        """Put right what a crash left, and seal and ship from here on, where no other supervisor does."""
        await self._attempt(self._first)
        self._running = self._tasks.start("accounting", self._run())

    def follow(self, usage: Usage | None) -> None:
        """Another configuration serves."""
        if usage != self._usage:
            self._usage = usage
            self._wake.set()

    def renew(self) -> None:
        """Certificates have changed."""
        if self._shipping is not None:
            self._shipping.renew()

    async def end(self) -> None:
        """Seal what was counted last, and ship what there is for a few seconds."""
        self._ending = True
        self._wake.set()
        if self._running is not None:
            _, late = await asyncio.wait([self._running], timeout=LAST_SEAL_SECONDS)
            if late:
                self._log.error("the disk does not take what was counted last; it stays in the tables")
        if self._shipping is not None:
            if not await self._shipping.finish(LAST_SHIPPING_SECONDS):
                left = self._shipping.standing.pending
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
        """Do what is due; what is odd about it."""
        faults = await self._open()
        if self._sealer is not None:
            faults = await self._seal(self._sealer)
        return faults

    async def _open(self) -> tuple[str, ...]:
        """Have what the configuration asks for, and this supervisor may have."""
        usage = self._usage
        if self._shipping is not None and self._shipping.usage != usage:
            shipping, self._shipping = self._shipping, None
            await shipping.end()
            self._since = time.time()
        if usage is None:
            self._close()
        elif self._sealer is None and self._store.identity.held:
            self._sealer = await self._table_reader.alone(partial(Sealer.open, self._store, self._region, time.time()))
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
        """Seal what has grown. Only tables are kept from others meanwhile, and only while they are read or marked."""
        alone = self._table_reader.alone
        growth = await alone(partial(sealer.look, time.time()))
        for part in growth.parts:
            self._waits = time.monotonic()
            batch = await run_in_thread("seal", partial(sealer.append, part, growth.until))
            self._waits = None
            if self._shipping is not None:
                self._shipping.sealed()
            await alone(partial(sealer.mark, part, batch))
        await alone(partial(sealer.end, growth))
        return growth.faults

    async def _attempt(self, work: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
        """Do a piece of this work, and know what came of it; it never fails itself."""
        try:
            faults = await work()
        except (OSError, BrokenSpoolError, identity.IdentityError) as error:
            self._record_outcome(_describe_error(error))
        except Exception as error:
            self._record_outcome(f"the supervisor failed: {error!r}", error)
        else:
            self._record_outcome("; ".join(faults))
        self._waits = None
        try:
            self._facts = await run_in_thread("look at the spool", partial(fetch_disk_facts, self._store))
        except OSError:
            pass  # It says how things were when they could last be seen.

    def _record_outcome(self, why: str, unforeseen: Exception | None = None) -> None:
        """Say what is wrong where that is news, and that nothing is any more."""
        before = self._trouble
        if not why:
            self._trouble = None
            if before is not None:
                self._log.info("sealing is well again", seconds=round(time.time() - before.since, 1))
            return
        self._trouble = SealingProblem(why, time.time() if before is None else before.since)
        if before is None or NUMBER.sub("", before.why) != NUMBER.sub("", why):
            self._log.error("sealing is not well; what is counted stays in the tables", why=why, exc_info=unforeseen)

    # ---- what is known

    async def report(self) -> dict[str, Any]:
        """`usage` of `GET /status`."""
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
        """The metrics of usage on its way. What is counted begins at zero with each supervisor."""
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
        """How shipping is, also where there is none."""
        if self._shipping is not None:
            return self._shipping.standing
        state, why = "off", ""
        if self._usage is not None:
            trouble = self._trouble
            state, why = ("elsewhere", OTHER) if trouble is None else ("stopped", trouble.why)
        return ShippingStatus(state, why, self._since, dict.fromkeys(RESULTS, 0), Pending(0, 0, None))

    def _sealing_problem(self) -> SealingProblem | None:
        """Why nothing is sealed; None where all is well."""
        waited = 0.0 if self._waits is None else time.monotonic() - self._waits
        if self._trouble is None and waited > SLOW_SEAL_SECONDS:
            return SealingProblem(f"the disk has not answered for {waited:.0f} s", time.time() - waited)
        return self._trouble

    async def _unshipped(self, pending: Pending) -> tuple[int, int]:
        """Units that the collector does not have as far as this supervisor knows, and the age of the oldest in seconds.

        What is being sealed at the moment may be in it twice.
        """
        if self._usage is None:
            return sum((await self._table_reader.meters()).values()), 0
        by_meter, until = await self._table_reader.unsealed()
        unsealed = sum(by_meter.values())
        since = [moment for moment, units in ((pending.since, pending.values), (until, unsealed)) if moment and units]
        return pending.values + unsealed, max(0, int(time.time() - min(since))) if since else 0

    async def _unshipped_by_meter(self, pending: Pending) -> dict[str, int] | None:
        """The same by meter, whose units differ. None where too much waits to be read for this."""
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
    """What is on the disk. Raises OSError."""
    folder = store.state / SPOOL
    taken = sum(path.stat().st_size for path in list_segments(folder))
    return DiskFacts(taken, fetch_watermark(folder), tuple(path.name for path in identity.list_set_aside(store.state)))


def _describe_error(failure: Exception) -> str:
    """What a person is told: of the kernel's errors what it is about and the words for it, without the number."""
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return str(failure) or type(failure).__name__
