"""The simulated life of an edge. Tables, spool and shipper are real; the disk and the process's death are simulated."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from edgeproxy.edge.counters import tallies
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import TallyTable
from edgeproxy.edge.usage import audit, identity
from edgeproxy.edge.usage.seal import EMPTY_BATCH_SECONDS, Sealer
from edgeproxy.edge.usage.segment import Record, parse_records
from edgeproxy.edge.usage.ship import Shipper
from edgeproxy.edge.usage.spool import list_segments, record_discarded
from edgeproxy.wire.batch import parse_batch
from loadtest.testbed.sealing import NOW, WAYS, Faulty, Killed, Name, choose, count, prepare, totals
from tests.faults.counting.wire import Wire
from tests.support.power import Memory, Pages

T = TypeVar("T")
ACTS = {
    "count": 10,
    "seal": 8,
    "ship": 10,
    "dies": 2,
    "worker_dies": 2,
    "tend": 2,
    "clock": 2,
    "fill": 1,
    "prune": 1,
    "move": 0.5,
    "damage": 0.3,
    "own_up": 0.5,
}
"""The actions of an edge, each with its relative frequency."""
DARK_ACTS = {"count": 10, "seal": 8, "ship": 10, "dies": 1, "clock": 1, "prune": 1, "power": 1.5}
"""The actions of an edge that loses power. It has one worker, because only that worker's pages are simulated."""
OFFSET = 5e7


async def inline(work: Callable[..., T], *given: object) -> T:
    """Do the work in the event loop instead of a thread, so that a seed always leads to one sequence of events."""
    return work(*given)


class Life:
    """An edge. `counted` holds the true counts of its workers, and `sealed` all batches ever sealed."""

    acts = ACTS

    def __init__(self, state: Path, wire: Wire, chance: random.Random, deadly: set[Path]) -> None:
        """`deadly` holds directories in which a process that writes a watermark is killed."""
        self.state = state
        self.wire = wire
        self.chance = chance
        self.deadly = deadly
        self.counted: Counter[Name] = Counter()
        self.sealed: dict[int, bytes] = {}
        """The batch bodies by batch number."""
        self.gone: set[int] = set()
        """The numbers of the batches that are removed from the spool or unreadable in it."""
        self.id = ""
        self.now = NOW + chance.randrange(60)
        self.customers = 40
        self.moves = 0
        self.supervisor: Store | None = None
        self.sealer: Sealer | None = None
        self.shipper: Shipper | None = None
        self.workers: list[Store] = []
        self.disk = Faulty()

    def heal(self) -> None:
        """End all faults of disk and network."""
        self.disk.full = False
        self.wire.calm = True

    # ---- actions without the collector

    def act(self) -> str:
        """Choose an action and do it, except `ship`, which the caller does. Return its name."""
        act = self.chance.choices(list(self.acts), list(self.acts.values()))[0]
        if act != "ship":
            getattr(self, act)()
        return act

    def up(self) -> Sealer:
        """Return the sealer. Restart the supervisor and the sealer if they died. Raises OSError or Killed."""
        if self.supervisor is None:
            identity.set_aside_if_moved(self.state, self.state)
            if self.chance.random() < 0.3:
                self.customers = self.chance.choice((40, 45, 50))
            self.supervisor = prepare(self.state, customers=self.customers)
            assert self.supervisor.identity.held
        if self.sealer is None:
            self.sealer = Sealer.open(self.supervisor, "here", self.now, disk=self.disk)
            assert self.sealer.aside is None
            assert self.id in ("", self.sealer.identity.id)
            self.id = self.sealer.identity.id
        return self.sealer

    def count(self) -> None:
        """Let the workers count usage."""
        with suppress(OSError, Killed):
            self.up()
        if self.supervisor is None:
            return
        while len(self.workers) < 2:
            self.workers.append(Store.join(self.state))
        for _ in range(self.chance.randrange(12)):
            one, n = choose(self.chance), self.chance.choice((1, 1, 1, 2, 70_000))
            count(self.chance.choice(self.workers), one, n)
            self.counted[one] += n

    def seal(self, trouble: float = 0.35) -> None:
        """Seal a batch. With probability `trouble`, the disk fails or the process is killed."""
        if self.chance.random() < trouble:
            self.disk.acts, self.disk.way = self.chance.randrange(1, 7), self.chance.choice(WAYS)
        stores = self.chance.randrange(1, 12) if self.chance.random() < trouble / 2 else 0
        self.now += self.chance.choice((0.2, 1, 5, 5, 5, 90))
        real = TallyTable.mark

        def mark(table: TallyTable, number: int, total: int) -> None:
            nonlocal stores
            stores -= 1
            if stores == 0:
                raise Killed
            real(table, number, total)

        tallies.TallyTable.mark = mark  # type: ignore[method-assign]
        try:
            self.up().seal(self.now)
        except OSError:
            pass
        except Killed:
            self.dies()
        finally:
            tallies.TallyTable.mark = real  # type: ignore[method-assign]
            self.disk.acts = 0

    def dies(self) -> None:
        """End the supervisor as `kill -9` does. The workers go on."""
        if self.sealer is not None:
            self.sealer.close()
        if self.supervisor is not None:
            self.supervisor.close()
        self.sealer = self.supervisor = self.shipper = None

    def clock_of(self) -> float:
        """Return the Unix time of this edge's clock."""
        return self.now

    def worker_dies(self) -> None:
        """End a worker as `kill -9` does."""
        if self.workers:
            self.workers.pop(self.chance.randrange(len(self.workers))).close()

    def tend(self) -> None:
        """Fold the files of dead workers into the base."""
        with suppress(OSError, Killed):
            self.up().store.maintain(OFFSET)

    def clock(self) -> None:
        """Step the clock backwards or forwards."""
        self.now += self.chance.choice((-7200, -3600, -61, -2, 3, 59, 120, 3600, 86400))

    def minute(self) -> None:
        """Advance the clock until the next batch is due, even one without rows."""
        sealer = self.up()
        last = sealer.spool.last
        self.now = max(self.now, sealer.until, 0 if last is None else last.until) + EMPTY_BATCH_SECONDS

    def fill(self) -> None:
        """Fill the disk, or free space on a full one."""
        self.disk.full = not self.disk.full

    def prune(self) -> None:
        """Prune acknowledged segments with a small retention."""
        self.remember()
        with suppress(OSError, Killed):
            for path in self.up().spool.prune(self.now, retention_bytes=self.chance.choice((0, 1000))):
                assert not path.exists()
        there = self.remember()
        self.gone |= self.sealed.keys() - there

    def damage(self) -> None:
        """Flip a bit of the spool in any record but the last."""
        self.remember()
        found = []
        for path in list_segments(self.state / "spool"):
            found += [(path, record) for record in parse_records(path.read_bytes()) if isinstance(record, Record)]
        if len(found) < 2:
            return
        path, one = self.chance.choice(found[:-1])
        content = bytearray(path.read_bytes())
        content[self.chance.randrange(one.offset, one.offset + one.size)] ^= 1 << self.chance.randrange(8)
        with path.open("r+b") as file:
            file.write(content)
        self.gone.add(parse_batch(one.body).seq)

    def own_up(self) -> None:
        """Record unreadable batches as discarded, as an operator does."""
        spool = self.state / "spool"
        if self.id:
            unread = audit.verify_spool(spool, self.id, audit.fetch_last_sealed(self.state, self.state)).unread
            if unread:
                record_discarded(spool, unread)

    def move(self) -> None:
        """Move the state directory to another path and adopt its identity there."""
        self.dies()
        while self.workers:
            self.worker_dies()
        self.moves += 1
        there = self.state.with_name(f"{self.state.name}.{self.moves}")
        if not self.state.exists() or identity.load_identity(self.state) is None:
            return
        shutil.copytree(self.state, there, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(self.state)
        self.state = there
        identity.adopt_identity(there, there)

    # ---- shipping

    def begin_shipping(self) -> Shipper | None:
        """Return the shipper, or None if the sealer cannot start now."""
        if self.shipper is None:
            try:
                sealer = self.up()
            except OSError:
                return None
            except Killed:
                self.dies()
                return None
            self.shipper = Shipper(sealer.spool, self.wire.send, clock=self.clock_of, chance=self.chance, aside=inline)
        return self.shipper

    async def ship(self) -> float:
        """Run one step of the shipper, during which the process may be killed. Return the step's seconds."""
        shipper = self.begin_shipping()
        if shipper is None:
            return 0.0
        if not self.wire.calm and self.chance.random() < 0.05:
            self.deadly.add(self.state / "spool")
        try:
            return await shipper.step()
        except Killed:
            self.dies()
            return 0.0
        finally:
            self.deadly.discard(self.state / "spool")

    def arrived(self) -> bool:
        """Return whether the collector has acknowledged all sealed batches."""
        return self.shipper is not None and self.shipper.status.state == "idle"

    # ---- checks

    def remember(self) -> set[int]:
        """Store the bodies of all batches in the spool and return their numbers."""
        there = set()
        for path in list_segments(self.state / "spool"):
            for record in parse_records(path.read_bytes()):
                if isinstance(record, Record):
                    seq = parse_batch(record.body).seq
                    assert self.sealed.setdefault(seq, record.body) == record.body, f"batch {seq} was another one"
                    there.add(seq)
        return there

    def sums(self, seqs: Iterable[int]) -> Counter[Name]:
        """Return the sums of the rows of these batches."""
        counts: Counter[Name] = Counter()
        for seq in seqs:
            for customer, meter, route, value in parse_batch(self.sealed[seq]).rows:
                counts[customer, meter, route] += value
        return counts

    def close(self) -> None:
        """End all processes and delete the state directory."""
        self.dies()
        for worker in self.workers:
            worker.close()
        with suppress(FileNotFoundError):
            shutil.rmtree(self.state)


class Dark(Life):
    """An edge whose host sometimes loses power. The disk then has each page of the tables as of some earlier time."""

    acts = DARK_ACTS

    def __init__(self, state: Path, wire: Wire, chance: random.Random, deadly: set[Path]) -> None:
        super().__init__(state, wire, chance, deadly)
        self.boots = 0
        self.memory = Memory(chance)
        self.pages: Pages | None = None

    def up(self) -> Sealer:
        if self.supervisor is None:
            self.supervisor = prepare(self.state, customers=60, boot=f"boot {self.boots}")
        if self.pages is None:
            before = totals(self.supervisor)
            assert before <= self.counted
        if self.sealer is None:
            self.sealer = Sealer.open(self.supervisor, "here", self.now, disk=self.memory)
            assert self.sealer.aside is None
            assert self.id in ("", self.sealer.identity.id)
            self.id = self.sealer.identity.id
        if self.pages is None:
            self.pages = Pages(self.supervisor.usage.file.path)
            # Counts lost with the power were never sealed. The test no longer expects them.
            self.remember()
            assert self.sums(self.sealed) <= totals(self.supervisor) <= self.counted
            self.counted = Counter(totals(self.supervisor))
        return self.sealer

    def count(self) -> None:
        self.up()
        assert self.pages is not None
        if not self.workers:
            self.workers.append(Store.join(self.state))
        for _ in range(self.chance.randrange(8)):
            one = choose(self.chance)
            count(self.workers[0], one)
            self.counted[one] += 1
            self.pages.moment()

    def seal(self, trouble: float = 0.1) -> None:
        self.now += 5
        try:
            sealer = self.up()
            if self.chance.random() < trouble:
                self.memory.acts = self.chance.randrange(1, 5)
            sealer.seal(self.now)
        except Killed:
            self.power()
        finally:
            self.memory.acts = 0

    def power(self) -> None:
        """Cut the power and restore it."""
        pages = self.pages
        if pages is None:
            return
        pages.moment()
        self.dies()
        while self.workers:
            self.worker_dies()
        # The prune action may have removed segments.
        self.memory.has = {path: has for path, has in self.memory.has.items() if Path(path).exists()}
        self.memory.lose()
        pages.lose(self.chance)
        self.memory, self.pages = Memory(self.chance), None
        self.boots += 1
