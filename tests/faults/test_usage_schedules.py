"""Thousands of schedules of the code as it is, from the tables of an edge to the collector's ledger.

Counting, sealing, shipping and settling, with deaths at any step of each, disks that fail, clocks that are set, a
network that loses, doubles and delays, and a collector that is put back to an earlier copy. Once all is well again,
whatever happened: what was counted is in the tables, in the batches, and in the ledger, once; or a gap says that it is
gone.
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
"""Worlds; each has so many edges."""
MEMORY = Path("/dev/shm")
"""Where waiting for the disk costs nothing: what a disk may lose is made up."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one."""
    with TemporaryDirectory(prefix="edgeproxy-worlds-", dir=MEMORY if MEMORY.is_dir() else tmp_path) as made:
        yield Path(made)


@pytest.fixture
def silent() -> Iterator[None]:
    """Thousands of deaths are not worth a line each."""
    with capture_logs() as lines:
        yield
        lines.clear()


@pytest.mark.parametrize("worlds", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
@pytest.mark.usefixtures("silent")
def test_each_count_is_in_the_ledger_once_whatever_happens(
    worlds: int, folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Segments are begun often, and batches are several.
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
