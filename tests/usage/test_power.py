"""The host loses power: the spool has what was waited for, each page of a table what stood in it at some moment since.

What was sealed stays sealed and counted; what was not sealed may be lost, and is never made up.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edgeproxy.counters import layout as at
from edgeproxy.counters.store import Store
from edgeproxy.counters.tallies import TallyTable
from edgeproxy.usage import seal
from edgeproxy.usage.seal import Sealer
from edgeproxy.usage.segment import Disk
from tests.usage.edge import NOW, Killed, Name, choose, count, prepare, sums, totals

FEW, MANY = 40, 2000


class Memory(Disk):
    """What the disk has of the spool: what was waited for, and of what is under way a part at most."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.acts = 0
        self.has: dict[str, bytes] = {}

    def act(self) -> None:
        self.acts -= 1
        if self.acts == 0:
            raise Killed

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.act()
        super().write(fd, data, offset)
        self.act()

    def sync(self, fd: int) -> None:
        self.act()
        path = os.readlink(f"/proc/self/fd/{fd}")
        self.has[path] = Path(path).read_bytes()
        self.act()

    def lose(self) -> None:
        for path, has in self.has.items():
            rest = Path(path).read_bytes()[len(has) :]
            if not rest:
                continue
            part = rest[: self.chance.randrange(len(rest) + 1)]
            # The size may be known before what is there.
            junk = self.chance.choice((b"", bytes(len(rest) - len(part)), self.chance.randbytes(20)))
            Path(path).write_bytes(has + part + junk)


class Pages:
    """What the disk may have of each page of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moments = [path.read_bytes()]

    def moment(self) -> None:
        self.moments.append(self.path.read_bytes())

    def synced(self) -> None:
        self.moments = [self.path.read_bytes()]

    def lose(self, chance: random.Random) -> None:
        pages = range(0, len(self.moments[-1]), at.PAGE)
        self.path.write_bytes(b"".join([chance.choice(self.moments)[page : page + at.PAGE] for page in pages]))


@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_what_was_sealed_is_counted_after_a_power_cut_and_nothing_else_is_made_up(
    rounds: int, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.usage.spool.LARGE", 700)
    monkeypatch.setattr("edgeproxy.usage.seal.MOST_ROWS", 6)
    chance = random.Random(seed)
    put_back = 0
    for one in range(rounds):
        put_back += life(tmp_path / f"state-{one}", chance, monkeypatch)
        shutil.rmtree(tmp_path / f"state-{one}")
    # It happened that the tables had lost what was sealed.
    assert put_back > 3


def life(state: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> int:
    """A few boots; returns how often something was put back."""
    counted: Counter[Name] = Counter()
    now = NOW
    put_back = 0
    for boot in range(3):
        store = prepare(state, people=60, boot=f"boot {boot}")
        memory = Memory(chance)
        sealed = sums(state / "spool", torn=True)
        before = totals(store)
        sealer = Sealer.open(store, "here", now, disk=memory)
        after = totals(store)
        put_back += after != before
        assert before <= after <= counted
        # What a batch says is in the tables, and what the tables have is no more than what was counted.
        assert sums(state / "spool") <= after
        assert sealed <= sums(state / "spool")
        # What was lost was neither sealed nor is it counted any more.
        counted = Counter(after)
        one(store, sealer, memory, chance, counted, now, monkeypatch)
        now += 1000
    store = prepare(state, people=60, boot="the last one")
    sealer = Sealer.open(store, "here", now)
    sealer.seal(now)
    assert sums(state / "spool") == totals(store) <= counted
    sealer.close()
    store.close()
    return put_back


def one(
    store: Store,
    sealer: Sealer,
    memory: Memory,
    chance: random.Random,
    counted: Counter[Name],
    now: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Count and seal until the power goes."""
    worker = Store.join(store.state)
    pages = Pages(store.usage.file.path)
    real: Callable[[Path], None] = seal._sync
    marks = 0

    def sync(folder: Path) -> None:
        real(folder)
        pages.synced()

    def mark(table: TallyTable, number: int, total: int) -> None:
        nonlocal marks
        marks -= 1
        if marks == 0:
            raise Killed
        marked(table, number, total)
        pages.moment()

    marked = TallyTable.mark
    with monkeypatch.context() as patched, suppress(Killed):
        patched.setattr(seal, "_sync", sync)
        patched.setattr(TallyTable, "mark", mark)
        last = chance.randrange(1, 25)
        for step in range(last):
            for _ in range(chance.randrange(8)):
                name = choose(chance)
                count(worker, name)
                counted[name] += 1
                pages.moment()
            if step == last - 1:
                memory.acts, marks = chance.choice(((0, 0), (chance.randrange(1, 5), 0), (0, chance.randrange(1, 9))))
            sealer.seal(now + 5 * step)
    pages.moment()
    memory_is, path = memory, pages
    sealer.close()
    worker.close()
    store.close()
    memory_is.lose()
    path.lose(chance)
