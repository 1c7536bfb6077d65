"""Several files in one tree."""

import hashlib
from pathlib import Path

import pytest

from edgeproxy.config import source
from edgeproxy.config.source import Source
from edgeproxy.config.tree import Items, Mark, Places, Table


@pytest.fixture
def read(folder: Path):
    """`read(main, **others)`: the source of edge.yaml and other files beside it."""

    def reader(main, **others):
        Path("edge.yaml").write_text(main)
        for name, content in others.items():
            path = Path(name.replace("__", "/") + ".yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        return Source(Path("edge.yaml"), {"NAME": "tiers"})

    return reader


def reported(result: Source) -> list[str]:
    """All problems."""
    return [str(problem) for problem in result.problems]


def test_named_things_and_lists_are_joined_in_the_order_of_reading(read):
    result = read(
        "include: [a.yaml, b.yaml]\nregion: x\ntiers: {one: 1}\nroutes: [r1]\n",
        a="include: c.yaml\ntiers: {two: 2}\nroutes: [r2]\ncustomers: {acme: 1}\n",
        b="tiers: {four: 4}\nroutes: [r4]\nkeys: [k]\n",
        c="tiers: {three: 3}\nroutes: [r3]\ndrain: 5s\n",
    )
    assert reported(result) == []
    assert result.tree == {
        "region": "x",
        "tiers": {"one": "1", "two": "2", "three": "3", "four": "4"},
        "routes": ["r1", "r2", "r3", "r4"],
        "customers": {"acme": "1"},
        "drain": "5s",
        "keys": ["k"],
    }
    assert [result.format_place(mark) for mark in result.tree["routes"].marks] == [
        "edge.yaml:4",
        "a.yaml:3",
        "c.yaml:2",
        "b.yaml:2",
    ]


def test_the_digest_is_over_all_files_in_that_order(read):
    result = read("include: [a.yaml]\n", a="tiers: {}\n")
    assert result.sha256 == hashlib.sha256(b"include: [a.yaml]\ntiers: {}\n").hexdigest()


def test_duplicate_definition_in_two_files_names_both_places(read):
    result = read(
        "include: [a.yaml]\nregion: x\ntiers:\n  basic: 1\nkeys: [k]\nlimits: {}\n",
        a="tiers:\n  pro: 2\n  basic: 3\nregion: y\nkeys: {a: b}\nlimits: {}\n",
    )
    assert reported(result) == [
        "a.yaml:3: tiers.basic: is defined already at edge.yaml:4, give one of them another name",
        "a.yaml:4: region: is defined already at edge.yaml:2, leave one of them out",
        "a.yaml:5: keys: is defined already at edge.yaml:5, leave one of them out",
        "a.yaml:6: limits: is defined already at edge.yaml:6, leave one of them out",
    ]
    assert result.tree["tiers"] == {"basic": "1", "pro": "2"}


def test_empty_section_of_several_files_is_one_problem(read):
    result = read("include: [a.yaml]\ntiers:\n", a="tiers: {x: 1}\n")
    assert reported(result) == ["edge.yaml:2: tiers: has no value, write one, or leave it out"]


def test_a_file_cannot_include_itself(read):
    result = read("include: [a.yaml]\n", a="include: [./edge.yaml]\ndrain: 1s\n")
    assert reported(result) == ["a.yaml:1: include.0: edge.yaml includes itself, leave this out"]
    assert result.tree == {"drain": "1s"}


def test_a_file_is_included_once(read):
    result = read("include:\n  - a.yaml\n  - b.yaml\n", a="drain: 1s\n", b="include: a.yaml\n")
    assert reported(result) == ["b.yaml:1: include: a.yaml is included already at edge.yaml:2, leave one of them out"]
    assert result.whole


@pytest.mark.parametrize(
    ("include", "problem"),
    [
        ("nope.yaml", "include: nope.yaml cannot be read: No such file or directory, name a file that can be read"),
        ("[.]", "include.0: . cannot be read: Is a directory, name a file that can be read"),
        ("{a: b}", "include: is not a file's name, write it as in include: [tiers.yaml]"),
        ("[[a]]", "include.0: is not a file's name, write it as in include: [tiers.yaml]"),
        ('"a\\0b"', "include: is not a file's name, write it as in include: [tiers.yaml]"),
        ("''", "include: is not a file's name, write it as in include: [tiers.yaml]"),
        ("[~]", "include.0: has no value, write one, or leave it out"),
    ],
)
def test_include_problem_names_its_line(read, include, problem):
    assert reported(read(f"drain: 1s\ninclude: {include}\n")) == [f"edge.yaml:2: {problem}"]


def test_a_main_file_that_cannot_be_read_is_reported(folder):
    result = Source(Path("conf/edge.yaml"), {})
    assert reported(result) == [
        "conf/edge.yaml:1: file: conf/edge.yaml cannot be read: No such file or directory, name a file that can be read"
    ]
    assert not result.whole


def test_a_file_is_read_up_to_a_size(read, monkeypatch):
    monkeypatch.setattr(source, "FILE_BYTES_MAX", 1 << 20)
    result = read("region: x\n" + "#" * (1 << 20))
    assert reported(result) == ["edge.yaml:1: yaml: is larger than 1 MiB, a configuration is not"]


def test_something_endless_is_not_read_for_ever(folder, monkeypatch):
    monkeypatch.setattr(source, "FILE_BYTES_MAX", 1 << 20)
    result = Source(Path("/dev/zero"), {})
    assert reported(result) == ["/dev/zero:1: yaml: is larger than 1 MiB, a configuration is not"]


# ---- where values are written


def tree() -> Table:
    """Two routes of one file and one of a second, a name, and a list that stands alone."""
    lines = [Mark(0, 3).pack(), Mark(0, 4).pack(), Mark(1, 1).pack()]
    routes = Items([Table({"path": "/a"}, [lines[0]]), Table({"path": "/b"}, [lines[1]]), "/c"], lines)
    return Table({"region": "here", "routes": routes}, [Mark(0, 1).pack(), Mark(0, 2).pack()])


def test_marks_grow_from_line_to_line_and_from_file_to_file():
    marks = [Mark(0, 1), Mark(0, 2), Mark(0, 70_000), Mark(1, 1)]
    assert sorted(mark.pack() for mark in marks) == [mark.pack() for mark in marks]
    assert [Mark.unpack(mark.pack()) for mark in marks] == marks


def test_a_value_is_located_with_its_line():
    result = Places(tree()).locate(("routes", 1, "path"))
    assert (Mark.unpack(result.mark), result.path, result.value) == (Mark(0, 4), ("routes", 1, "path"), "/b")


def test_missing_field_is_located_at_its_parent():
    result = Places(tree()).locate(("routes", 0, "upstream", "x"))
    assert (Mark.unpack(result.mark), result.path) == (Mark(0, 3), ("routes", 0))
    assert Mark.unpack(Places(tree()).locate(("upstreams",)).mark) == Mark(0, 1)


def test_indexes_count_from_the_beginning_of_each_files_part():
    result = Places(tree()).locate(("routes", 2))
    assert (Mark.unpack(result.mark), result.path, result.written) == (Mark(1, 1), ("routes", 2), ("routes", 0))


def test_index_resolves_to_a_scalar_outside_a_list():
    assert Places(tree()).locate(("region", 0)).path == ("region",)
