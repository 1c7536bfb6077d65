"""Thousands of fault schedules on the real code, from the tables of an edge to the collector's ledger.

The schedules kill processes at any step of counting, sealing, shipping and settling. Disks fail, clocks step, the
network loses, repeats and delays messages, and the collector is restored from an earlier copy. After the faults have
ended, each count is once in the tables, in the batches and in the ledger, or a gap reports its loss.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.counting.books import make_empty
from tests.faults.counting.world import World
from tests.support.logs import capture_logs

EDGES = 50
FEW, MANY = 1, 100
"""The number of worlds in a short and in a long run. Each world has EDGES edges."""
MEMORY = Path("/dev/shm")
"""A directory in memory: syncs cost nothing there. The tests simulate the losses of a disk."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, if the system has one."""
    with TemporaryDirectory(
        prefix="edgeproxy-worlds-", dir=MEMORY if MEMORY.is_dir() else tmp_path
    ) as temporary_directory:
        yield Path(temporary_directory)


@pytest.fixture
def silent() -> Iterator[None]:
    """Discard the log lines of thousands of deaths."""
    with capture_logs() as lines:
        yield
        lines.clear()


@pytest.mark.parametrize("worlds", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
@pytest.mark.usefixtures("silent")
def test_each_count_is_in_the_ledger_once_after_all_faults(
    worlds: int, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small bounds lead to many segments and to several batches per seal.
    monkeypatch.setattr("edgeproxy.edge.usage.spool.SEGMENT_BYTES", 600)
    monkeypatch.setattr("edgeproxy.edge.usage.seal.ROWS_MAX", 5)
    met: Counter[str] = Counter()

    async def all_of_them() -> None:
        empty = await make_empty(folder / "empty.db")
        for number in range(worlds):
            world = World(folder / f"{number}", empty, f"{seed}/{number}", EDGES)
            try:
                await world.run()
            except BaseException:
                print(f"world {seed}/{number}")
                raise
            finally:
                await world.close()
            print(f"world {seed}/{number} agrees", flush=True)
            met.update(world.acts)
            for life in world.lives:
                met.update(life.wire.fates)
                met.update({f"answer {said}": n for said, n in life.wire.answers.items()})
                met.update(edges=1, batches=len(life.sealed), gone=len(life.gone))

    asyncio.run(all_of_them())
    print(dict(sorted(met.items())))
    assert met["batches"] > worlds * EDGES * 5
