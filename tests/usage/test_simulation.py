"""Thousands of schedules of the code as it is: counting, sealing, folding, deaths at any step, disks that fail.

After each, whatever happened: what the batches come to is what the tables have counted, and what was counted.
"""

import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from edgeproxy.counters import tallies
from edgeproxy.counters.store import Store
from edgeproxy.counters.tallies import TallyTable
from edgeproxy.usage.seal import Sealer
from tests.support.sealing import NOW, WAYS, Faulty, Killed, Name, batches, choose, count, prepare, sums, totals

FEW, MANY = 100, 5000


class Schedule:
    """One edge's life: `counted` is what its workers know they have counted."""

    def __init__(self, state: Path, chance: random.Random) -> None:
        self.state = state
        self.chance = chance
        self.counted: Counter[Name] = Counter()
        self.now = NOW + chance.randrange(60)
        self.people = 40
        self.supervisor: Store | None = None
        self.sealer: Sealer | None = None
        self.workers: list[Store] = []
        self.disk = Faulty()
        self.seals = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            act = self.chance.choices(
                (self.count, self.seal, self.dies, self.worker_dies, self.tend, self.clock),
                weights=(10, 8, 2, 2, 3, 2),
            )[0]
            act()
        self.seal(trouble=0)
        assert sums(self.state / "spool") == totals(self.up()) == self.counted

    def up(self) -> Store:
        if self.supervisor is None:
            if self.chance.random() < 0.3:
                self.people = self.chance.choice((40, 45, 50))
            self.supervisor = prepare(self.state, people=self.people)
            assert self.supervisor.identity.held
        return self.supervisor

    def count(self) -> None:
        self.up()
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
            store = self.up()
            if self.sealer is None:
                self.sealer = Sealer.open(store, "here", self.now, disk=self.disk)
            self.sealer.seal(self.now)
            self.seals += 1
        except OSError:
            pass
        except Killed:
            self.dies()
        finally:
            tallies.TallyTable.mark = real  # type: ignore[method-assign]
            self.disk.acts = 0

    def dies(self) -> None:
        if self.sealer is not None:
            self.sealer.close()
        if self.supervisor is not None:
            self.supervisor.close()
        self.sealer = self.supervisor = None

    def worker_dies(self) -> None:
        if self.workers:
            self.workers.pop(self.chance.randrange(len(self.workers))).close()

    def tend(self) -> None:
        self.up().tend(5e7)

    def clock(self) -> None:
        self.now += self.chance.choice((-3600, -61, -2, 3, 59, 120, 86400))

    def close(self) -> None:
        self.dies()
        for worker in self.workers:
            worker.close()


@pytest.mark.parametrize("schedules", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_each_count_is_in_one_batch_whatever_happens(
    schedules: int, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Segments are begun often, so that this is among what is cut off.
    monkeypatch.setattr("edgeproxy.usage.spool.LARGE", 600)
    monkeypatch.setattr("edgeproxy.usage.seal.MOST_ROWS", 5)
    made = 0
    for number in range(schedules):
        state = tmp_path / "state"
        schedule = Schedule(state, random.Random(f"{seed}/{number}"))
        try:
            schedule.run(40)
            made += len(batches(state / "spool"))
        except BaseException:
            print(f"schedule {seed}/{number}")
            raise
        finally:
            schedule.close()
            with suppress(FileNotFoundError):
                shutil.rmtree(state)
    assert made > schedules
