"""The order of stores and loads: what the model of ARMv8 says of the barriers, and in which order heads are read."""

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeproxy.edge.counters.heads import read_heads
from edgeproxy.edge.counters.layout import CUM, LEVEL, PERIOD, SEEN_CUM

LITMUS = sorted(Path(__file__).with_name("litmus").glob("*.litmus"))
BARE = {"gauge-half", "publish-bare", "publish-one"}
"""Those that show what happens without a barrier, or with half of one."""


@pytest.mark.skipif(shutil.which("herd7") is None, reason="there is no herd7 here")
@pytest.mark.parametrize("path", LITMUS, ids=lambda path: path.stem)
def test_no_execution_that_the_processor_allows_is_one_that_the_tables_cannot_bear(path: Path) -> None:
    said = subprocess.run(["herd7", path], capture_output=True, text=True, timeout=120, check=True).stdout
    observed = "Sometimes" if path.stem in BARE else "Never"
    assert f"Observation {path.stem} {observed} " in said


class Moving:
    """Words of one head into which another process stores while they are read: before each read, so many stores."""

    def __init__(self, words: list[int], stores: list[tuple[int, int]], before: tuple[int, ...]) -> None:
        self.words, self._stores, self._before = words, iter(stores), iter(before)

    def __getitem__(self, place: slice) -> memoryview:
        for word, value in itertools.islice(self._stores, next(self._before)):
            self.words[word] = value
        return memoryview(bytearray().join(word.to_bytes(8, "little") for word in self.words)).cast("Q")[place]


@pytest.mark.parametrize(
    ("before", "stores"),
    [
        ([7, 5, 0], [(CUM, 0), (PERIOD, 6), (CUM, 1)]),
        ([7, 70, 7], [(CUM, 8), (LEVEL, 80), (SEEN_CUM, 8)]),
    ],
    ids=["quota", "bucket"],
)
def test_nothing_old_is_read_with_what_says_that_it_is_new(before: list[int], stores: list[tuple[int, int]]) -> None:
    for moments in itertools.product(range(4), repeat=3):
        words = Moving([*before, 0, 0, 0, 0], stores, moments)
        heads = read_heads(words, 0, 7, 7)  # type: ignore[arg-type]
        assert (heads[PERIOD], heads[CUM]) != (6, 7)
        assert heads[SEEN_CUM] != 8 or heads[LEVEL] == 80
