"""Lists on pages: their columns and filters, the order that readers choose, and their cells in a file. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import orjson

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.config.collector.currency_units import to_decimal

T = TypeVar("T", bound=Mapping[str, object])
ROWS_MAX = 50
"""Rows of a page, unless a list sets another number."""

Query = Mapping[str, str]


class Column(NamedTuple):
    """A column of a list."""

    name: str
    """The field of the API; `handling.acknowledged_at` is a nested field."""
    called: str
    is_number: bool = False
    is_amount: bool = False
    """True if it is in smallest units of the row's currency."""


class Filter(NamedTuple):
    """A filter of a list."""

    name: str
    """The parameter of the page and of the API."""
    called: str
    choices: Mapping[str, str] | None = None
    """The choices, by the API's values; None: any text."""
    default: str = ""
    is_time: bool = False
    """True for a time to the minute in UTC. The page has its own form for it."""
    suggests: bool = False
    """True if the page suggests texts, in a list with the filter's name."""


class Listing(NamedTuple):
    """A list of the API on a page."""

    name: str
    """The field with the rows in the API's answer, and the name of the CSV file."""
    columns: tuple[Column, ...]
    sorts: Mapping[str, Query]
    """The API's query for each order, for example `name` or `-name`. The first one is the default."""
    filters: tuple[Filter, ...] = ()
    more: tuple[Column, ...] = ()
    """Columns only in the file."""
    cursor: str = "cursor"
    """The API's parameter for the next page."""
    rows_max: int = ROWS_MAX
    file: str = ""
    """The name of the file, if different."""


class ListView(NamedTuple):
    """A page of a list, in the reader's language."""

    rows: Sequence[JsonDocument]
    next: str
    """The cursor of the next page; empty on the last one."""
    columns: tuple[Column, ...]
    filters: tuple[Filter, ...]
    values: Query
    """The values of the filters."""
    sort: str
    sorts: tuple[str, ...]

    def find_order(self, column: str) -> str:
        """Return a column's value of aria-sort (WAI-ARIA 1.2); empty if the list is not sorted by it."""
        return {column: "ascending", f"-{column}": "descending"}.get(self.sort, "")

    def find_next_sort(self, column: str) -> str:
        """Return the order that a click on a column's heading selects; empty if the column is not sortable."""
        ways = [way for way in (column, f"-{column}") if way in self.sorts]
        return next((way for way in ways if way != self.sort), "")

    @property
    def has_usual(self) -> bool:
        """Return True if the default order belongs to no column. The page then offers it separately."""
        return bool(self.sorts) and self.sorts[0] not in {way for way, _, _ in self.choices}

    @property
    def chosen(self) -> int:
        """Return the number of filters with a value."""
        return sum(bool(value) for value in self.values.values())

    @property
    def choices(self) -> list[tuple[str, str, bool]]:
        """Return the orders: the value, the column's name, and True if descending."""
        called = {column.name: column.called for column in self.columns}
        return [
            (way, called[name], way.startswith("-")) for way in self.sorts if (name := way.removeprefix("-")) in called
        ]


def sort_by(*names: str) -> dict[str, Query]:
    """Return the orders of a list whose API has `sort`, the default first. Each can be reversed."""
    ways = [way for name in names for way in (name, name[1:] if name.startswith("-") else f"-{name}")]
    return {way: {"sort": way} for way in ways}


def order_by(name: str) -> dict[str, Query]:
    """Return the orders of a list whose API has `order`, by time. Latest first is the default."""
    return {f"-{name}": {"order": "newest"}, name: {"order": "oldest"}}


def read_query(listing: Listing, query: Query) -> tuple[str, dict[str, str]]:
    """Return the order and the filters in the query of a page."""
    sort = query.get("sort", "")
    values = {filter_.name: query.get(filter_.name, filter_.default).strip() for filter_ in listing.filters}
    for filter_ in listing.filters:
        if filter_.choices is not None and values[filter_.name] not in filter_.choices:
            values[filter_.name] = ""
    return sort if sort in listing.sorts else next(iter(listing.sorts)), values


def build_query(listing: Listing, sort: str, values: Query, limit: int, cursor: str) -> dict[str, str]:
    """Return the API's query for a page of a list."""
    query = {"limit": str(limit), **listing.sorts[sort]}
    query |= {name: value for name, value in values.items() if value}
    return query | ({listing.cursor: cursor} if cursor else {})


def sort_rows(rows: Sequence[T], sort: str) -> Sequence[T]:
    """Return rows sorted by a field. Rows without it come last."""
    name = sort.removeprefix("-")
    there = [row for row in rows if find_field(row, name) is not None]
    there.sort(key=lambda row: find_field(row, name), reverse=sort.startswith("-"))  # type: ignore[arg-type, return-value]
    return [*there, *(row for row in rows if find_field(row, name) is None)]


def paginate(whole: Sequence[T], name: str, most: int, after: str | None) -> tuple[Sequence[T], str]:
    """Return a page of objects and the cursor of the next page, which is empty on the last page.

    The page begins after the object whose field `name` is `after`.
    """
    names = [str(one[name]) for one in whole]
    first = names.index(after) + 1 if after in names else 0
    end = first + most
    return whole[first:end], names[end - 1] if end < len(names) else ""


def find_field(row: Mapping[str, object], name: str) -> object:
    """Return a field of a row, or a nested field; None if it is missing."""
    value: object = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def write_cell(row: JsonDocument, column: Column) -> str:
    """Return a field as text for a file: amounts in whole units of the currency, objects and lists as JSON."""
    value = find_field(row, column.name)
    if value is None:
        return ""
    if column.is_amount and row["currency"] is not None:  # Without a currency nothing was charged yet: it is 0.
        return str(to_decimal(int(str(value)), row["currency"]))
    return orjson.dumps(value).decode() if isinstance(value, Mapping | list) else str(value)


def translate(listing: Listing, say: Callable[[str], str]) -> Listing:
    """Return a list with translated words. `say` translates."""
    columns = tuple(column._replace(called=say(column.called)) for column in listing.columns)
    return listing._replace(columns=columns, filters=tuple(_translate(filter_, say) for filter_ in listing.filters))


def _translate(one: Filter, say: Callable[[str], str]) -> Filter:
    choices = None if one.choices is None else {value: say(called) for value, called in one.choices.items()}
    return one._replace(called=say(one.called), choices=choices)
