"""The host loses power: the spool has what was waited for, each page of a table what stood in it at some moment since.

What was sealed stays sealed and counted; what was not sealed may be lost, and is never made up.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from edgeproxy.counters.store import Store
from edgeproxy.counters.tallies import TallyTable
from edgeproxy.usage import seal
from edgeproxy.usage.seal import Sealer
from tests.support.power import Memory, Pages
from tests.support.sealing import NOW, Killed, Name, choose, count, prepare, sums, totals

FEW, MANY = 40, 2000


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
