"""One edge's life in a simulation: its tables, its spool who ships from it are real; its disk and its end are not."""

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
"""What becomes of an edge next, and how often."""
DARK_ACTS = {"count": 10, "seal": 8, "ship": 10, "dies": 1, "clock": 1, "prune": 1, "power": 1.5}
"""The same, where the power goes; what that does to the tables is known of one worker's alone."""
OFFSET = 5e7


async def inline(work: Callable[..., T], *given: object) -> T:
    """What would be done in a thread, done here, so that a seed has one course."""
    return work(*given)


class Life:
    """An edge. `counted` is what its workers know they have counted; `sealed`, all batches that there ever were."""

    acts = ACTS

    def __init__(self, state: Path, wire: Wire, chance: random.Random, deadly: set[Path]) -> None:
        """Who writes a watermark into one of `deadly` is killed at it."""
        self.state = state
        self.wire = wire
        self.chance = chance
        self.deadly = deadly
        self.counted: Counter[Name] = Counter()
        self.sealed: dict[int, bytes] = {}
        """The bodies by seq."""
        self.gone: set[int] = set()
        """Those of them that are not in the spool any more, or cannot be read there."""
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
        """Nothing is wrong with it from now on."""
        self.disk.full = False
        self.wire.calm = True

    # ---- what it does, none of which takes the collector

    def act(self) -> str:
        """Do something; `ship` is left to the caller."""
        act = self.chance.choices(list(self.acts), list(self.acts.values()))[0]
        if act != "ship":
            getattr(self, act)()
        return act

    def up(self) -> Sealer:
        """Who seals, put up again where it died; raises OSError or Killed."""
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
        """Its workers count."""
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
        """Seal; some die at it, or find their disk in trouble."""
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
        """kill -9 of the supervisor; workers go on."""
        if self.sealer is not None:
            self.sealer.close()
        if self.supervisor is not None:
            self.supervisor.close()
        self.sealer = self.supervisor = self.shipper = None

    def clock_of(self) -> float:
        """Unix time as this edge has it."""
        return self.now

    def worker_dies(self) -> None:
        """kill -9 of a worker."""
        if self.workers:
            self.workers.pop(self.chance.randrange(len(self.workers))).close()

    def tend(self) -> None:
        """Files in which nobody counts any more are folded into the base."""
        with suppress(OSError, Killed):
            self.up().store.maintain(OFFSET)

    def clock(self) -> None:
        """The clock is set."""
        self.now += self.chance.choice((-7200, -3600, -61, -2, 3, 59, 120, 3600, 86400))

    def minute(self) -> None:
        """Its clock is right again, and so much time passes that the next batch comes, with rows or without."""
        sealer = self.up()
        last = sealer.spool.last
        self.now = max(self.now, sealer.until, 0 if last is None else last.until) + EMPTY_BATCH_SECONDS

    def fill(self) -> None:
        """The disk is full, or has room again."""
        self.disk.full = not self.disk.full

    def prune(self) -> None:
        """What is acknowledged is not kept for long."""
        self.remember()
        with suppress(OSError, Killed):
            for path in self.up().spool.prune(self.now, retention_bytes=self.chance.choice((0, 1000))):
                assert not path.exists()
        there = self.remember()
        self.gone |= self.sealed.keys() - there

    def damage(self) -> None:
        """A byte of the spool is another one, in any record but the last."""
        self.remember()
        found = []
        for path in list_segments(self.state / "spool"):
            found += [(path, one) for one in parse_records(path.read_bytes()) if isinstance(one, Record)]
        if len(found) < 2:
            return
        path, one = self.chance.choice(found[:-1])
        content = bytearray(path.read_bytes())
        content[self.chance.randrange(one.offset, one.offset + one.size)] ^= 1 << self.chance.randrange(8)
        with path.open("r+b") as file:
            file.write(content)
        self.gone.add(parse_batch(one.body).seq)

    def own_up(self) -> None:
        """Somebody says that what cannot be read is lost."""
        spool = self.state / "spool"
        if self.id:
            unread = audit.verify_spool(spool, self.id, audit.fetch_last_sealed(self.state, self.state)).unread
            if unread:
                record_discarded(spool, unread)

    def move(self) -> None:
        """The directory is copied to another place, and goes on there; nobody adopts the old one."""
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
        """Who ships; None where nobody can now."""
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
        """One step of shipping; some die at it. What it returns."""
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
        """Whether all that was sealed has been acknowledged."""
        return self.shipper is not None and self.shipper.status.state == "idle"

    # ---- what is known of it

    def remember(self) -> set[int]:
        """Note all batches that are in the spool; returns their numbers."""
        there = set()
        for path in list_segments(self.state / "spool"):
            for one in parse_records(path.read_bytes()):
                if isinstance(one, Record):
                    seq = parse_batch(one.body).seq
                    assert self.sealed.setdefault(seq, one.body) == one.body, f"batch {seq} was another one"
                    there.add(seq)
        return there

    def sums(self, seqs: Iterable[int]) -> Counter[Name]:
        """What these batches come to."""
        found: Counter[Name] = Counter()
        for seq in seqs:
            for customer, meter, route, value in parse_batch(self.sealed[seq]).rows:
                found[customer, meter, route] += value
        return found

    def close(self) -> None:
        """End everything, and leave nothing."""
        self.dies()
        for worker in self.workers:
            worker.close()
        with suppress(FileNotFoundError):
            shutil.rmtree(self.state)


class Dark(Life):
    """An edge whose host loses its power now and then: of its tables, the disk may have any moment of each page."""

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
            # What was lost was never sealed, and is not counted any more.
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
        """It is gone, and back."""
        pages = self.pages
        if pages is None:
            return
        pages.moment()
        self.dies()
        while self.workers:
            self.worker_dies()
        # Segments are removed, too.
        self.memory.has = {path: has for path, has in self.memory.has.items() if Path(path).exists()}
        self.memory.lose()
        pages.lose(self.chance)
        self.memory, self.pages = Memory(self.chance), None
        self.boots += 1
