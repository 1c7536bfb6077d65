"""Where values are written."""

from edgeproxy.config.tree import Items, Mark, Places, Table


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
