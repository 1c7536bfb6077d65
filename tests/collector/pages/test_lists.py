"""Lists of pages: parts of a whole, orders, filters and the cells of files."""

from typing import Any

from edgeproxy.collector.pages.lists import (
    Column,
    Filter,
    Listing,
    ListView,
    build_query,
    paginate,
    read_query,
    sort_by,
    sort_rows,
    write_cell,
)


def test_the_pages_of_a_list_are_all_of_it_once() -> None:
    whole = [{"name": f"n{number}"} for number in range(5)]
    for most in range(1, 7):
        seen: list[dict[str, Any]] = []
        cursor, pages = "", 0
        while cursor or not pages:
            some, cursor = paginate(whole, "name", most, cursor)
            seen += some
            pages += 1
        assert (seen, pages) == (whole, -(-5 // most))


def test_list_sorts_by_its_columns_with_missing_values_last() -> None:
    rows = [{"name": "b", "at": 2}, {"name": "c", "at": None}, {"name": "a", "at": 3}, {"name": "d", "at": 2}]
    assert [row["name"] for row in sort_rows(rows, "at")] == ["b", "d", "a", "c"]
    assert [row["name"] for row in sort_rows(rows, "-at")] == ["a", "b", "d", "c"]
    assert [row["name"] for row in sort_rows(rows, "name")] == ["a", "b", "c", "d"]
    assert sort_rows([{"last": {"at": 2}}, {"last": None}, {"last": {"at": 1}}], "last.at")[0] == {"last": {"at": 1}}


def test_unknown_list_query_falls_back_to_the_default() -> None:
    listing = Listing("ones", (Column("name", "Name"),), sort_by("-at", "name"), (Filter("kind", "Kind", {"a": "A"}),))
    assert read_query(listing, {"sort": "name; DROP", "kind": "b"}) == ("-at", {"kind": ""})
    assert read_query(listing, {"sort": "at", "kind": " a "}) == ("at", {"kind": "a"})
    assert build_query(listing, "name", {"kind": ""}, 7, "c") == {"limit": "7", "sort": "name", "cursor": "c"}
    view = ListView([], "", listing.columns, (), {}, "name", tuple(listing.sorts))
    assert (view.find_order("name"), view.find_next_sort("name")) == ("ascending", "-name")
    assert (view.find_order("kind"), view.find_next_sort("kind")) == ("", "")
    assert view._replace(sort="-name").find_order("name") == "descending"


def test_cells_of_a_file_are_amounts_in_whole_units_and_objects_as_json() -> None:
    row = {"total": 1234, "currency": "usd", "handling": {"by": "=cmd|x"}, "after": {"a": [1]}, "none": None}
    assert write_cell(row, Column("total", "", is_amount=True)) == "12.34"
    assert write_cell(row, Column("handling.by", "")) == "=cmd|x"
    assert write_cell(row, Column("after", "")) == '{"a":[1]}'
    assert [write_cell(row, Column(name, "")) for name in ("none", "absent", "none.of")] == ["", "", ""]
