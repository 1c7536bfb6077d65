from pathlib import Path
from time import perf_counter

import pytest

from edgeproxy.edge.counters.base import Base, Fold, Sums, add_sums, read_stamp
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.tallies import COUNTER, HISTOGRAM
from tests.support.tables import METRICS, USAGE, make, tallies

ROWS: Sums = {b"acme\0requests\0v1": (COUNTER, [5]), b"edge\0\xc3\xa9": (HISTOGRAM, [1, 2, 3])}


def test_a_base_is_empty_until_something_is_folded(tmp_path: Path) -> None:
    base = Base.load(tmp_path / "base.json")
    assert base.folded == frozenset()
    assert base.tables == {}


def test_base_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    base = Base().fold("usage.1.tbl", "usage", ROWS, present=frozenset())
    base.write(path)
    read = Base.load(path)
    assert read.folded == {"usage.1.tbl"}
    assert read.tables == {"usage": ROWS}


def test_folding_adds_to_existing_sums_and_does_not_mutate_the_base() -> None:
    one = Base().fold("usage.1.tbl", "usage", ROWS, present=frozenset())
    more: Sums = {b"acme\0requests\0v1": (COUNTER, [7]), b"globex\0requests\0v1": (COUNTER, [1])}
    two = one.fold("usage.2.tbl", "usage", more, present=frozenset({"usage.1.tbl"}))
    assert two.tables["usage"][b"acme\0requests\0v1"] == (COUNTER, [12])
    assert two.tables["usage"][b"globex\0requests\0v1"] == (COUNTER, [1])
    assert one.tables["usage"] == ROWS
    assert two.folded == {"usage.1.tbl", "usage.2.tbl"}


def test_names_of_folded_files_that_are_gone_are_forgotten() -> None:
    one = Base().fold("usage.1.tbl", "usage", ROWS, present=frozenset())
    assert one.fold("metrics.1.tbl", "metrics", {}, present=frozenset()).folded == {"metrics.1.tbl"}


def test_rows_of_different_widths_are_added_word_by_word() -> None:
    sums: Sums = {}
    add_sums(sums, HISTOGRAM, b"seconds", [1, 2])
    add_sums(sums, HISTOGRAM, b"seconds", [1, 2, 3])
    assert sums == {b"seconds": (HISTOGRAM, [2, 4, 3])}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"version":1}', "is damaged"),
        (b'{"version":1,"folded":[],"tables":{"usage":[["x"]]}}', "is damaged"),
        (b'{"version":7}', "has version 7, and this program reads 1"),
    ],
)
def test_a_base_that_cannot_be_understood_is_an_error(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "base.json"
    path.write_bytes(content)
    with pytest.raises(TableError, match=f"base.json: {why}"):
        Base.load(path)


def test_a_file_is_read_by_the_piece(tmp_path: Path) -> None:
    table = tallies(make(tmp_path, METRICS._replace(rows=200)), 1)
    for number in range(200):
        table.words[table.own(b"%d" % number, COUNTER)] = number
    fold = Fold(table)
    slices = 1
    while not fold.slice(perf_counter()):
        slices += 1
    assert slices == 4
    assert {key: words[0] for key, (_, words) in fold.sums.items()} == {b"%d" % n: n for n in range(200)}


def test_a_stamp_changes_when_the_base_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    seen = {read_stamp(path)}
    for _ in range(3):
        Base().write(path)
        seen.add(read_stamp(path))
    assert len(seen) == 4


def test_base_file_stores_the_sealed_part_of_its_counts(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    acme, globex = b"acme\0requests\0v1", b"globex\0requests\0v1"
    base = Base().fold("usage.1.tbl", "usage", {acme: (COUNTER, [5])}, present=frozenset())
    assert list(base.list_unsealed("usage")) == [(acme, 5, 0)]
    assert list(base.list_unsealed("metrics")) == []
    base.write(path)
    assert b'"version":1' in path.read_bytes()
    # Even an empty set of marks changes the version, so that a program without marks refuses the file.
    assert base.mark({}).sealed == {}
    base.mark({}).write(path)
    assert b'"version":2' in path.read_bytes()
    marked = Base.load(path).mark({acme: 5})
    assert marked.sealed == {acme: 5}
    assert list(marked.list_unsealed("usage")) == []
    # Sealed counts stay sealed.
    assert marked.mark({acme: 3}) is marked
    more = marked.fold(
        "usage.2.tbl",
        "usage",
        {acme: (COUNTER, [2]), globex: (COUNTER, [4])},
        present=frozenset(),
        marks={acme: 1, globex: 0},
    )
    assert more.sealed == {acme: 6}
    assert list(more.list_unsealed("usage")) == [(acme, 7, 6), (globex, 4, 0)]
    more.write(path)
    assert Base.load(path).sealed == {acme: 6}


def test_marks_of_a_file_are_read_by_the_piece(tmp_path: Path) -> None:
    table = tallies(make(tmp_path, USAGE._replace(rows=200)), 1)
    for number in range(200):
        table.words[table.own(b"%d" % number, COUNTER)] = number
        table.mark(number, number)
    fold = Fold(table)
    slices = 1
    while not fold.slice(perf_counter()):
        slices += 1
    assert slices == 7
    assert fold.marks == {b"%d" % number: number for number in range(200)}
