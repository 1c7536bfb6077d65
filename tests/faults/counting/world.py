"""Simulated edges and their collector in rounds of faults, and checks of their counts after the faults have ended."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters.file import write_whole
from edgeproxy.edge.counters.tallies import TallyTable
from edgeproxy.edge.usage import seal, spool
from edgeproxy.wire.batch import compute_digest
from loadtest.testbed.sealing import Killed, batches, sums, totals
from tests.faults.counting.books import Books, Name
from tests.faults.counting.life import Dark, Life
from tests.faults.counting.wire import Wire
from tests.support.power import Pages

sync, mark = seal._sync_tables, TallyTable.mark

ROUNDS = 40
STEPS = 4
"""The highest number of shipping steps in a round."""
DARK = 5
"""One of this many edges is on a host that sometimes loses power."""
HEALED = 400
"""Steps within which all batches must arrive after the faults have ended."""


class World:
    """Some edges and their collector. `seed` determines the sequence of events."""

    def __init__(self, folder: Path, empty: Path, seed: str, edges: int) -> None:
        self.chance = random.Random(seed)
        self.books = Books(folder / "collector", empty)
        self.deadly: set[Path] = set()
        self.lives = [self._life(folder, f"{seed}/{number}", dark=number % DARK == 0) for number in range(edges)]
        self.acts: Counter[str] = Counter()

    def _life(self, folder: Path, seed: str, *, dark: bool = False) -> Life:
        chance = random.Random(seed)
        state = folder / f"edge-{seed.rpartition('/')[2]}"
        return (Dark if dark else Life)(state, Wire(self.books, chance), chance, self.deadly)

    def _dark(self) -> Iterator[tuple[Path, Pages]]:
        """Yield the state directory and the disk pages of each edge whose host may lose power."""
        for life in self.lives:
            if isinstance(life, Dark) and life.pages is not None:
                yield life.state, life.pages

    def sync(self, folder: Path) -> None:
        """Sync the tables, and record the sync for the simulated disk."""
        sync(folder)
        for state, pages in self._dark():
            if state == folder:
                pages.synced()

    def _marking(self) -> Callable[[TallyTable, int, int], None]:
        """Return a method that replaces `TallyTable.mark` and records the moment for the simulated disk."""

        def marking(table: TallyTable, number: int, total: int) -> None:
            mark(table, number, total)
            for _, pages in self._dark():
                if table.file.path == pages.path:
                    pages.moment()

        return marking

    def write_whole(self, path: Path, content: bytes) -> None:
        """Write a watermark. In a deadly directory, the process is killed before or after the write."""
        if path.parent not in self.deadly:
            write_whole(path, content)
            return
        if self.chance.random() < 0.5:
            write_whole(path, content)
        raise Killed

    async def run(self) -> None:
        """Run all rounds, end the faults, and check the counts."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(spool, "write_whole", self.write_whole)
            patched.setattr(seal, "_sync_tables", self.sync)
            patched.setattr(TallyTable, "mark", self._marking())
            for _ in range(ROUNDS):
                await self._round()
            await self._heal()
            await self._check()

    async def _round(self) -> None:
        shipping = []
        for life in self.lives:
            act = life.act()
            self.acts[act] += 1
            if act == "ship":
                shipping.append(life)
        fate = self.chance.choices(("up", "dies", "copied", "restored"), (20, 4, 2, 1))[0]
        self.acts[f"collector {fate}"] += 1
        if fate == "copied":
            await self.books.copy()
        if fate == "restored":
            await self.books.restore()
        if fate == "dies":
            self.books.dies = self.chance.choice(("before", "after"))
        for _ in range(self.chance.randint(1, STEPS)):
            await asyncio.gather(*(life.ship() for life in shipping))
            await self.books.revive()
        await asyncio.gather(*(life.wire.late() for life in self.lives if self.chance.random() < 0.1))
        await self.books.revive()

    async def _heal(self) -> None:
        """End all faults and ship until all counts have arrived."""
        self.books.dies = ""
        await self.books.revive()
        left = []
        for life in self.lives:
            life.heal()
            life.seal(trouble=0)
        await asyncio.gather(*(life.wire.late() for life in self.lives))
        for life in self.lives:
            # A restored collector lacks batches and says so in the answer to the next batch. The next batch comes
            # within a minute, even without new counts.
            life.count()
            life.minute()
            life.seal(trouble=0)
            if life.id:
                left.append(life)
        for _ in range(HEALED):
            await asyncio.gather(*(life.ship() for life in left))
            for life in left:
                if life.shipper is not None and life.shipper.status.state == "stopped":
                    life.own_up()
            left = [life for life in left if not life.arrived()]
            if not left:
                return
        raise AssertionError([(life.state, life.shipper and life.shipper.status) for life in left])

    async def _check(self) -> None:
        ledger, settled = await self.books.counted(), await self.books.settled()
        for life in self.lives:
            if not life.id:
                assert not life.counted
                continue
            try:
                self._check_life(life, ledger.get(life.id, Counter()), settled[life.id])
            except AssertionError as wrong:
                wrong.add_note(f"{type(life).__name__} {life.state}: gone {life.gone}; settled {settled[life.id]}")
                raise
        assert ledger.keys() <= {life.id for life in self.lives}
        found = await self.books.verify()
        total = sum(sum(counts.values()) for counts in ledger.values())
        assert found.total == total
        for by in ("", "minute", "hour", "day", "customer,route"):
            assert await self.books.total(by) == total

    def _check_life(self, life: Life, ledger: Counter[Name], settled: dict[int, tuple[int, str, str]]) -> None:
        life.remember()
        assert life.sealer is not None
        # The true counts equal the tables, and the sums of all batches ever sealed.
        assert totals(life.sealer.store) == life.counted
        assert life.sums(life.sealed) == life.counted
        assert sorted(life.sealed) == list(range(1, len(life.sealed) + 1))
        # The collector has each batch or a gap for it. A batch in a gap must really be gone.
        gaps: set[int] = set()
        unread: set[int] = set()
        expected = 1
        for seq, (last, found, state) in sorted(settled.items()):
            assert seq == expected
            expected = last + 1
            if state == "gap":
                gaps |= {*range(seq, last + 1)}
            elif state == "quarantined":
                unread.add(seq)
            else:
                assert (last, found, state) == (seq, compute_digest(life.sealed[seq]), "counted")
        assert expected == len(life.sealed) + 1
        assert gaps <= life.gone
        # A garbled batch is sent again, except if the shipper was killed or the collector was restored in between.
        assert unread <= life.wire.garbled
        assert ledger == life.counted - life.sums(gaps | unread)
        if not life.gone:
            assert sums(life.state / "spool") == life.counted
            assert len(batches(life.state / "spool")) == len(life.sealed)
        assert life.shipper is not None
        assert life.shipper.status.state == "idle"

    async def close(self) -> None:
        """End the collector and all edges."""
        await self.books.die()
        for life in self.lives:
            life.close()
