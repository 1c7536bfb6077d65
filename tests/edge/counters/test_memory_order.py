"""The order of stores and loads: the verdict of the ARMv8 model on the barriers, and the order of reading heads."""

import ast
import itertools
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeproxy
from edgeproxy.edge.counters.heads import read_heads
from edgeproxy.edge.counters.layout import CUM, LEVEL, PERIOD, SEEN_CUM

LITMUS = sorted(Path(__file__).with_name("litmus").glob("*.litmus"))
BARE = {"gauge-half", "publish-bare", "publish-one"}
"""The litmus tests that show the result without a barrier, or with half of one."""


@pytest.mark.skipif(shutil.which("herd7") is None, reason="there is no herd7 here")
@pytest.mark.parametrize("path", LITMUS, ids=lambda path: path.stem)
def test_herd7_finds_no_forbidden_execution_of_each_litmus(path: Path) -> None:
    said = subprocess.run(["herd7", path], capture_output=True, text=True, timeout=120, check=True).stdout
    observed = "Sometimes" if path.stem in BARE else "Never"
    assert f"Observation {path.stem} {observed} " in said


ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `([\w/.]+::[\w.]+)` \| (\d+) \| ([\w, -]+) \|$", re.MULTILINE)
VARIANTS = {"gauge-cas", "gauge-x86"}
"""The shape of `gauge` on other processors."""


def fences(node: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[str]:
    """The function around each call of fence()."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        inside = (*inside, node.name)
    if isinstance(node, ast.Call) and "fence" in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
        yield ".".join(inside)
    for child in ast.iter_child_nodes(node):
        yield from fences(child, inside)


def test_each_barrier_of_the_code_has_its_litmus_on_the_page() -> None:
    rows = ROW.findall((ROOT / "docs/design/memory-order.md").read_text())
    edge = Path(edgeproxy.__file__).parent / "edge"  # A folder of tests of the compiled build has no sources.
    there = Counter(
        f"{file.relative_to(edge)}::{function}"
        for file in edge.rglob("*.py")
        if "fence" in (source := file.read_text())
        for function in fences(ast.parse(source))
    )
    assert {place: int(number) for place, number, _ in rows} == there
    shapes = {shape for _, _, names in rows for shape in names.split(", ")}
    assert shapes == {path.stem for path in LITMUS} - BARE - VARIANTS


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
def test_new_stamps_are_never_read_with_old_values(before: list[int], stores: list[tuple[int, int]]) -> None:
    for moments in itertools.product(range(4), repeat=3):
        words = Moving([*before, 0, 0, 0, 0], stores, moments)
        heads = read_heads(words, [(0, 7)], 7)  # type: ignore[arg-type]
        assert (heads[PERIOD], heads[CUM]) != (6, 7)
        assert heads[SEEN_CUM] != 8 or heads[LEVEL] == 80
