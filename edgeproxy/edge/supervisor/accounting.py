"""Accounting seals the workers' counts into batches and ships them, in the supervisor that holds the identity lock.

A failure here costs no request and no count: counts stay in the tables, batches in the spool, and the next turn tries
again. The failure is logged once, and is in `GET /status` and the metrics for as long as it lasts.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks, run_in_thread
from edgeproxy.config.directory import KeyOwner
from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.destinations import NO_FACTS, Destinations, DiskFacts, fetch_disk_facts
from edgeproxy.edge.supervisor.shipping import Shipping
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.usage import identity, seal
from edgeproxy.edge.usage.answer import RESULTS, Reply
from edgeproxy.edge.usage.audit import sum_unshipped
from edgeproxy.edge.usage.chains import Chains
from edgeproxy.edge.usage.identity import SPOOL, get_chain_folder
from edgeproxy.edge.usage.seal import Sealer
from edgeproxy.edge.usage.ship import ShippingStatus
from edgeproxy.edge.usage.spool import BrokenSpoolError, Pending
from edgeproxy.wire.key_uses import KeysUsed

RETRY_SECONDS, IDLE_SEAL_SECONDS = 1.0, 60.0
"""Seconds between two attempts to acquire the identity lock, and between two turns without work."""
LAST_SHIPPING_SECONDS = 5.0
"""Seconds for shipping at the end. A batch that has not arrived by then waits in the spool for the next start."""
LAST_SEAL_SECONDS = 10.0
"""Seconds for the last seal at the end. Counts that the disk has not taken by then stay in the tables."""
READ_BYTES_MAX = 8 << 20
"""Bytes of the spool that are read at most to sum the unshipped units by meter."""
SLOW_SEAL_SECONDS = 10.0
"""Seconds of waiting for the disk until the wait is reported as a problem."""
OTHER = "another supervisor tends this state directory; this one seals and ships once that has ended"
NUMBER = re.compile(r"[0-9]+")
"""Numbers in a message. Two messages that differ only in numbers are one piece of news."""


class SealingProblem(NamedTuple):
    """The reason why sealing fails or is degraded, and its start in Unix seconds."""

    why: str
    since: float


class Accounting:
    """The accounting of one supervisor. `begin` runs before workers start, `end` after they have left."""

    def __init__(
        self,
        store: Store,
        table_reader: TableReader,
        region: str,
        destinations: Destinations,
        sync_age: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`sync_age` returns the seconds since the edge agreed with the hub; None if no limits are shared."""
        self._store = store
        self._sync_age = sync_age
        self._table_reader = table_reader
        self._region = region
        self._destinations = destinations
        self._keys_used: dict[str, KeysUsed] = {}
        """The keys that were used today, by residency; they are sent to its collector with the next batch."""
        self._chains: Chains | None = None
        self._shippings: dict[str, Shipping] = {}
        self._problem: SealingProblem | None = None
        self._facts: dict[str, DiskFacts] = {}
        self._off_since = time.time()
        """Unix second since which shipping is off."""
        self._waiting_since: float | None = None
        """Monotonic moment since when a write waits for the disk; None while nothing is written."""
        self._ending = False
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None
        self._log = log.get_logger()

    # ---- its life

    async def begin(self) -> None:
        """Recover the state after a crash. Then seal and ship, if no other supervisor does."""
        await self._attempt(self._first)
        self._running = self._tasks.start("accounting", self._run())

    def follow(self, destinations: Destinations) -> None:
        """Apply the destinations of another configuration."""
        if destinations != self._destinations:
            self._destinations = destinations
            self._wake.set()

    def renew(self) -> None:
        """Ship over new connections, as certificates have changed."""
        for shipping in self._shippings.values():
            shipping.renew()

    def list_residencies(self) -> list[str]:
        """List the residencies whose collectors are shipped to; the empty name is the edge's own."""
        return list(self._destinations.usages) or [""]

    def record_used_keys(self, known: Mapping[bytes, KeyOwner], now: float) -> None:
        """Record that these keys are in use at this Unix second, each for the collector of its customer."""
        for digest, owner in known.items():
            self._keys_used.setdefault(owner.residency, KeysUsed()).record((digest,), now)

    async def send_report(self, path: str, report: JsonObject, residency: str = "") -> Reply | None:
        """Send a report to this path of a residency's collector (empty: the edge's own).

        Return None if this supervisor ships nothing there. Raises OSError if the collector does not answer.
        """
        sealer, shipping = self._find_sealer(residency), self._shippings.get(residency)
        if sealer is None or shipping is None:
            return None
        return await shipping.send_report(sealer.identity.id, path, report)

    async def end(self) -> None:
        """Seal the last counts and ship for a few seconds."""
        self._ending = True
        self._wake.set()
        if self._running is not None:
            # A disk that hangs must not keep the edge from ending. The counts survive in the tables.
            _, late = await asyncio.wait([self._running], timeout=LAST_SEAL_SECONDS)
            if late:
                self._log.error("the disk does not take what was counted last; it stays in the tables")
        await asyncio.gather(*map(self._finish, self._shippings.values()))
        self._shippings = {}
        if self._running is not None and self._running.done():
            self._close()
        await self._tasks.cancel()

    async def _finish(self, shipping: Shipping) -> None:
        if not await shipping.finish(LAST_SHIPPING_SECONDS):
            left = shipping.status.pending
            self._log.warning("batches wait for the next start", batches=left.batches, units=left.values)
        await shipping.end()

    async def _first(self) -> tuple[str, ...]:
        # Only the holder of this lock seals.
        if self._destinations.usages:
            self._store.identity.try_acquire()
        return await self._open()

    async def _run(self) -> None:
        ended = False
        while not ended:
            # Read before the turn: `end` may come during it, and then one more turn seals the last counts.
            ended = self._ending
            await self._attempt(self._run_turn)
            if not self._ending:
                await self._pause()

    async def _pause(self) -> None:
        usages, seconds = self._destinations.usages.values(), IDLE_SEAL_SECONDS
        if usages:
            every = min(usage.every for usage in usages)
            # Without chains, another supervisor holds the lock and may end soon, or they could not be opened.
            seconds = RETRY_SECONDS if self._chains is None else seal.seconds_until_seal(time.time(), every)
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            pass
        self._wake.clear()

    # ---- a turn

    async def _run_turn(self) -> tuple[str, ...]:
        """Open the parts that the settings require, seal, and return the faults."""
        faults = await self._open()
        if self._chains is not None:
            faults = await self._seal(self._chains)
        return faults

    async def _open(self) -> tuple[str, ...]:
        """Open and close the chains and shipping as the settings and the identity lock demand. Returns no faults."""
        usages, home = self._destinations
        # The set of chains decides where counts go, so another set opens all of them anew.
        is_other = self._chains is not None and self._chains.sealers.keys() != usages.keys()
        for residency, shipping in tuple(self._shippings.items()):
            if is_other or shipping.usage != usages.get(residency):
                del self._shippings[residency]
                await shipping.end()
                self._off_since = time.time()
        if is_other:
            self._close()
        if usages and self._chains is None and self._store.identity.held:
            others = [residency for residency in usages if residency]
            # Exclusively, because opening may write marks that a killed supervisor had not written (`recover`).
            opened = partial(Chains.open, self._store, self._region, time.time(), home=home, others=others)
            self._chains = await self._table_reader.run_exclusively(opened)
            for sealer in self._chains.sealers.values():
                self._log_opened(sealer)
        if self._chains is not None:
            for residency, usage in usages.items():
                if residency not in self._shippings:
                    self._ship(residency, self._chains.sealers[residency], usage)
        return ()

    def _ship(self, residency: str, sealer: Sealer, usage: Usage) -> None:
        """Begin to ship a chain."""
        keys = self._keys_used.setdefault(residency, KeysUsed())
        name = (residency or self._destinations.home) if self._destinations.home else None
        self._shippings[residency] = Shipping(sealer.spool, usage, keys, self._sync_age, residency=name)
        named = {} if name is None else {"residency": name}
        self._log.info("usage is shipped", edge=sealer.identity.id, collector=usage.collector, **named)
        if usage.is_exposed:
            self._log.warning("the collector's token can be read by all on the way", collector=usage.collector)

    def _close(self) -> None:
        if self._chains is not None:
            self._chains.close()
            self._chains = None

    def _log_opened(self, sealer: Sealer) -> None:
        last = sealer.spool.last
        self._log.info("usage is sealed", edge=sealer.identity.id, batch=0 if last is None else last.seq)
        for place in sealer.spool.damage:
            self._log.error("the spool is damaged", where=str(place))
        if sealer.aside is not None:
            why = "its end cannot be read; this edge goes on under a new identity"
            self._log.error("the spool was set aside", aside=str(sealer.aside), why=why)

    async def _seal(self, chains: Chains) -> tuple[str, ...]:
        """Seal the counts since the last seal, and return faults of the tables.

        The tables are locked only while they are read or marked, not while the disk is written.
        """
        alone = self._table_reader.run_exclusively
        growths, faults = await alone(partial(chains.find_growth, time.time()))
        for sealer, growth in growths:
            for part in growth.parts:
                self._waiting_since = time.monotonic()
                batch = await run_in_thread("seal", partial(sealer.append_batch, part, growth.until))
                self._waiting_since = None
                if sealer.residency in self._shippings:
                    self._shippings[sealer.residency].sealed()
                # After the batch is on disk. If the edge is killed in between, the next start finds the batch and
                # completes the marks.
                await alone(partial(sealer.write_marks, part, batch))
        await alone(partial(chains.record_sealed, growths))
        return faults

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
            looked_at = partial(fetch_disk_facts, self._store, self.list_residencies())
            self._facts = await run_in_thread("look at the spool", looked_at)
        except OSError:
            pass  # The last known facts stay.

    def _record_outcome(self, why: str, unforeseen: Exception | None = None) -> None:
        """Log a problem when it is new, and log its end."""
        before = self._problem
        if not why:
            self._problem = None
            if before is not None:
                self._log.info("sealing is well again", seconds=round(time.time() - before.since, 1))
            return
        self._problem = SealingProblem(why, time.time() if before is None else before.since)
        # A full disk names other byte counts at each attempt, which is no news.
        if before is None or NUMBER.sub("", before.why) != NUMBER.sub("", why):
            self._log.error("sealing is not well; what is counted stays in the tables", why=why, exc_info=unforeseen)

    # ---- status

    async def report(self) -> JsonObject:
        """Return the field `usage` of `GET /status`: of the edge's own chain, with the unshipped usage of all."""
        trouble = self._sealing_problem()
        pending = self._pending()
        units, oldest = await self._unshipped(pending)
        report: JsonObject = {
            "unshipped": units,
            "unshipped_by_meter": await self._unshipped_by_meter(),
            "oldest_s": oldest,
            **self._report_chain(""),
            "sealing": None if trouble is None else trouble._asdict(),
            "aside": list(self._get_facts("").aside),
        }
        if self._destinations.home is not None:
            report["residencies"] = {
                residency or self._destinations.home: {
                    **self._report_chain(residency),
                    "aside": list(self._get_facts(residency).aside),
                }
                for residency in self._destinations.usages
            }
        return report

    def _report_chain(self, residency: str) -> JsonObject:
        status, facts = self._shipping_status(residency), self._get_facts(residency)
        sealer = self._find_sealer(residency)
        return {
            "batches": status.pending.batches,
            "edge": None if sealer is None else sealer.identity.id,
            # From the disk if another supervisor seals.
            "watermark": (facts.watermark or None) if sealer is None else sealer.spool.watermark,
            "spool_bytes": facts.spool_bytes,
            "shipping": {"state": status.state, "why": status.why, "since": status.since},
        }

    async def series(self) -> list[Series]:
        """Return the metrics of unshipped usage, of all chains. Counters begin at zero with each supervisor."""
        residencies = self.list_residencies()
        statuses = {residency: self._shipping_status(residency) for residency in residencies}
        units, oldest = await self._unshipped(self._pending())
        own = self._find_sealer("")
        is_shipping = {residency: int(status.state != "stopped") for residency, status in statuses.items()}
        results = {result: sum(status.results[result] for status in statuses.values()) for result in RESULTS}
        facts = [self._get_facts(residency) for residency in residencies]
        series: list[Series] = [
            ("edge_usage_unshipped", (), (units,)),
            ("edge_usage_unshipped_seconds", (), (oldest,)),
            ("edge_usage_spool_bytes", (), (sum(fact.spool_bytes for fact in facts),)),
            ("edge_usage_watermark", (), (self._get_facts("").watermark if own is None else own.spool.watermark,)),
            # One chain that is stopped must not hide behind the others.
            ("edge_usage_shipping_ok", (), (min(is_shipping.values()),)),
            ("edge_usage_sealing_ok", (), (int(self._sealing_problem() is None),)),
            ("edge_usage_aside", (), (sum(len(fact.aside) for fact in facts),)),
            *(("edge_usage_batches_total", (result,), (count,)) for result, count in results.items()),
        ]
        if self._destinations.home is not None:
            for residency, status in statuses.items():
                name = residency or self._destinations.home
                series.append(("edge_residency_unshipped_batches", (name,), (status.pending.batches,)))
                series.append(("edge_residency_shipping_ok", (name,), (is_shipping[residency],)))
        return series

    def _find_sealer(self, residency: str) -> Sealer | None:
        return None if self._chains is None else self._chains.sealers.get(residency)

    def _get_facts(self, residency: str) -> DiskFacts:
        return self._facts.get(residency, NO_FACTS)

    def _pending(self) -> Pending:
        """Return the sealed batches that are not acknowledged, of all chains."""
        pending = [shipping.status.pending for shipping in self._shippings.values()]
        since = [chain.since for chain in pending if chain.since is not None]
        batches, values = sum(chain.batches for chain in pending), sum(chain.values for chain in pending)
        return Pending(batches, values, min(since, default=None))

    def _shipping_status(self, residency: str) -> ShippingStatus:
        """Return the status of shipping, even if shipping is off or done elsewhere."""
        if residency in self._shippings:
            return self._shippings[residency].status
        state, why = "off", ""
        if self._destinations.usages:
            trouble = self._problem
            state, why = ("elsewhere", OTHER) if trouble is None else ("stopped", trouble.why)
        return ShippingStatus(state, why, self._off_since, dict.fromkeys(RESULTS, 0), Pending(0, 0, None))

    def _sealing_problem(self) -> SealingProblem | None:
        """Return why nothing is sealed; None if sealing works."""
        waited = 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since
        if self._problem is None and waited > SLOW_SEAL_SECONDS:
            return SealingProblem(f"the disk has not answered for {waited:.0f} s", time.time() - waited)
        return self._problem

    async def _unshipped(self, pending: Pending) -> tuple[int, int]:
        """Return the units that the collector has not acknowledged, and the age of the oldest in seconds.

        A batch that is being sealed at this moment may be counted twice.
        """
        if not self._destinations.usages:
            return sum((await self._table_reader.meters()).values()), 0
        by_meter, until = await self._table_reader.unsealed()
        unsealed = sum(by_meter.values())
        since = [moment for moment, units in ((pending.since, pending.values), (until, unsealed)) if moment and units]
        return pending.values + unsealed, max(0, int(time.time() - min(since))) if since else 0

    async def _unshipped_by_meter(self) -> dict[str, int] | None:
        """Return the unacknowledged units by meter; None if the spools are too large to be read for this."""
        if not self._destinations.usages:
            return await self._table_reader.meters()
        sums, _ = await self._table_reader.unsealed()
        for residency, shipping in tuple(self._shippings.items()):
            if not shipping.status.pending.batches:
                continue
            spool = get_chain_folder(self._store.state, residency) / SPOOL
            try:
                sealed = await run_in_thread("read the spool", partial(sum_unshipped, spool, READ_BYTES_MAX))
            except OSError:
                sealed = None
            if sealed is None:
                return None
            sums = {meter: sums.get(meter, 0) + sealed.get(meter, 0) for meter in {*sums, *sealed}}
        return dict(sorted(sums.items()))


def _describe_error(failure: Exception) -> str:
    """Describe an error for a person: an OSError by its file and text, without its number."""
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return str(failure) or type(failure).__name__
