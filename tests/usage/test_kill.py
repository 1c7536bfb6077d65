"""kill -9 of who seals, with workers that count meanwhile: real processes, real files, real locks."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.counters.store import Store
from edgeproxy.counters.tallies import TallyTable
from edgeproxy.usage.seal import Sealer
from edgeproxy.usage.segment import Disk
from edgeproxy.usage.spool import segments
from tests.support.sealing import batches, choose, count, prepare, sums, totals

PATIENCE = 20.0


class Process:
    """A process that does `work` until it ends or is killed."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            try:
                work()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(1)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait for its end; returns its exit code, less than 0 where a signal killed it."""
        if self.code is None:
            deadline = time.monotonic() + PATIENCE
            while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
                if time.monotonic() >= deadline:
                    os.kill(self.pid, signal.SIGKILL)
                    pytest.fail("it does not end")
                time.sleep(0.001)  # the wait is for the process, which nothing else tells of
            self.code = os.waitstatus_to_exitcode(ended[1])
        return self.code


class Deadly(Disk):
    """A disk at whose nth act the process is killed: before it, in the midst of it, or after it."""

    def __init__(self, acts: int, way: str) -> None:
        self.acts = acts
        self.way = way

    def _acts(self, way: str) -> None:
        if self.acts == 1 and way == self.way:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self._acts("before")
        if self.acts == 1 and self.way == "torn":
            os.pwrite(fd, data[: len(data) * 2 // 3], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(fd, data, offset)
        self._acts("after")
        self.acts -= 1

    def sync(self, fd: int) -> None:
        self._acts("before")
        self._acts("torn")
        super().sync(fd)
        self._acts("after")
        self.acts -= 1


def seal(state: Path, disk: Disk, marks: int = 0, people: int = 40) -> None:
    """Take over as soon as it is free, and seal as fast as it goes; killed before the nth mark."""
    store = prepare(state, people=people)
    deadline = time.monotonic() + PATIENCE
    while not store.identity.try_acquire():
        assert time.monotonic() < deadline, "the lock was not to be had"
        time.sleep(0.001)
    real = TallyTable.mark
    left = marks

    def mark(table: TallyTable, number: int, total: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(table, number, total)

    TallyTable.mark = mark  # type: ignore[method-assign]
    sealer = Sealer.open(store, "here", time.time(), disk=disk)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sealer.seal()
        store.tend(5e7)


def work(state: Path, seed: str, until: Path) -> None:
    """Count until there is a file, and say in it how much."""
    chance = random.Random(seed)
    store = Store.join(state)
    counted = 0
    deadline = time.monotonic() + 5 * PATIENCE
    while not until.exists() and time.monotonic() < deadline:
        for _ in range(20):
            n = chance.choice((1, 1, 3))
            count(store, choose(chance), n)
            counted += n
        time.sleep(0)
    (state / f"counted.{os.getpid()}").write_text(str(counted))


class Edge:
    """The state directory and who is at work in it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.ended = folder / "ended"
        self.workers: list[Process] = []
        prepare(self.state).close()

    def work(self, seed: str) -> None:
        self.workers.append(Process(lambda: work(self.state, seed, self.ended)))

    def assert_exact(self, *, killed: bool) -> int:
        """Everything is over: seal the rest, and what the batches come to is what was counted. Returns how many."""
        self.ended.write_text("")
        for worker in self.workers:
            assert worker.end() == 0
        said = sum(int(path.read_text()) for path in self.state.glob("counted.*"))
        store = prepare(self.state)
        assert store.identity.held
        sealer = Sealer.open(store, "here", time.time())
        sealer.seal()
        counted = totals(store)
        assert sums(self.state / "spool") == counted
        if not killed:
            assert counted.total() == said
        assert counted.total() >= said > 0
        sealer.close()
        store.close()
        return len(batches(self.state / "spool"))


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    monkeypatch.setattr("edgeproxy.usage.spool.LARGE", 3000)
    monkeypatch.setattr("edgeproxy.usage.seal.MOST_ROWS", 9)
    edge = Edge(tmp_path)
    yield edge
    edge.ended.write_text("")
    for worker in edge.workers:
        worker.end()


def sealed(edge: Edge) -> int:
    return sum(path.stat().st_size for path in segments(edge.state / "spool"))


POINTS = [(act, way, 0) for act in range(1, 8) for way in ("before", "torn", "after")]
POINTS += [(0, "", marks) for marks in (1, 2, 8, 9, 10, 11, 30)]


def test_killed_at_every_step_of_sealing_each_count_is_in_one_batch(edge: Edge, seed: int) -> None:
    for number in range(2):
        edge.work(f"{seed}/{number}")
    # Twice: the first ones begin with a spool that is to be made, the others with one that is there.
    for act, way, marks in POINTS + POINTS:
        sealer = Process(lambda act=act, way=way, marks=marks: seal(edge.state, Deadly(act, way), marks))  # type: ignore[misc]
        assert sealer.end() == -signal.SIGKILL, (act, way, marks)
    assert edge.assert_exact(killed=False) > 20


def test_killed_at_any_moment_with_workers_that_are_killed_too(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(2):
        edge.work(f"{seed}/{number}")
    sealers: list[Process] = []
    for number in range(40):
        # Two may be there at once: the second one waits for the lock, and has other tables.
        while len(sealers) < 2:
            people = chance.choice((40, 40, 45))
            sealers.append(Process(lambda people=people: seal(edge.state, Disk(), people=people)))  # type: ignore[misc]
        deadline, before = time.monotonic() + PATIENCE, sealed(edge)
        while sealed(edge) == before and time.monotonic() < deadline:
            time.sleep(chance.random() * 0.02)
        sealers.pop(chance.randrange(2)).kill()
        if chance.random() < 0.3:
            edge.workers.pop(chance.randrange(2)).kill()
            edge.work(f"{seed}/again/{number}")
    for sealer in sealers:
        sealer.kill()
    assert edge.assert_exact(killed=True) > 20
