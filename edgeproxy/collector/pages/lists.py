"""Lists that pages show: their columns and filters, the order that readers choose, and their cells in a file. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import orjson

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.config.collector.currency_units import to_decimal

T = TypeVar("T", bound=Mapping[str, object])
ROWS_MAX = 50
"""Rows of a page, where a list says nothing else."""

Query = Mapping[str, str]


class Column(NamedTuple):
    """A column of a list."""

    name: str
    """The field of the API; `handling.acknowledged_at` is one within another."""
    called: str
    is_number: bool = False
    is_amount: bool = False
    """Whether it is in smallest units of the row's currency."""


class Filter(NamedTuple):
    """A filter of a list."""

    name: str
    """The parameter of the page and of the API."""
    called: str
    choices: Mapping[str, str] | None = None
    """What can be chosen, by the API's values; None: any text."""
    default: str = ""
    is_time: bool = False
    """Whether it is a time to the minute, in UTC, which the page has a form of its own for."""
    suggests: bool = False
    """Whether the page suggests texts, in a list with the filter's name."""


class Listing(NamedTuple):
    """A list of the API as a page shows it."""

    name: str
    """The field of the answer that has the rows, and the name of the file of CSV."""
    columns: tuple[Column, ...]
    sorts: Mapping[str, Query]
    """The API's query for each order that can be chosen, such as `name` or `-name`; the first is the usual one."""
    filters: tuple[Filter, ...] = ()
    more: tuple[Column, ...] = ()
    """Columns that the file has alone."""
    cursor: str = "cursor"
    """The API's parameter for the next page."""
    rows_max: int = ROWS_MAX
    file: str = ""
    """The name of the file, where it is another one."""


class ListView(NamedTuple):
    """A page of a list, in words of its reader."""

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
        """Return the value of aria-sort (WAI-ARIA 1.2) of a column; empty where the list is in another order."""
        return {column: "ascending", f"-{column}": "descending"}.get(self.sort, "")

    def find_next_sort(self, column: str) -> str:
        """Return the order to which the heading of a column leads; empty where there is none."""
        ways = [way for way in (column, f"-{column}") if way in self.sorts]
        return next((way for way in ways if way != self.sort), "")

    @property
    def has_usual(self) -> bool:
        """Return whether the usual order is that of no column, so that it has to be offered by itself."""
        return bool(self.sorts) and self.sorts[0] not in {way for way, _, _ in self.choices}

    @property
    def chosen(self) -> int:
        """Return how many filters have a value."""
        return sum(bool(value) for value in self.values.values())

    @property
    def choices(self) -> list[tuple[str, str, bool]]:
        """Return the orders: the value, the name of the column, and whether it is descending."""
        called = {column.name: column.called for column in self.columns}
        return [
            (way, called[name], way.startswith("-")) for way in self.sorts if (name := way.removeprefix("-")) in called
        ]


def sort_by(*names: str) -> dict[str, Query]:
    """Return the orders of a list whose API has `sort`, the usual one first; each can be turned round."""
    ways = [way for name in names for way in (name, name[1:] if name.startswith("-") else f"-{name}")]
    return {way: {"sort": way} for way in ways}


def order_by(name: str) -> dict[str, Query]:
    """Return the orders of a list whose API has `order`, by time: the latest first is the usual one."""
    return {f"-{name}": {"order": "newest"}, name: {"order": "oldest"}}


def read_query(listing: Listing, query: Query) -> tuple[str, dict[str, str]]:
    """Return the order and the filters that the query of a page asks for."""
    sort = query.get("sort", "")
    values = {one.name: query.get(one.name, one.default).strip() for one in listing.filters}
    for one in listing.filters:
        if one.choices is not None and values[one.name] not in one.choices:
            values[one.name] = ""
    return sort if sort in listing.sorts else next(iter(listing.sorts)), values


def build_query(listing: Listing, sort: str, values: Query, limit: int, cursor: str) -> dict[str, str]:
    """Return the query of the API."""
    query = {"limit": str(limit), **listing.sorts[sort]}
    query |= {name: value for name, value in values.items() if value}
    return query | ({listing.cursor: cursor} if cursor else {})


def sort_rows(rows: Sequence[T], sort: str) -> Sequence[T]:
    """Return rows in the order of a field, those without it last."""
    name = sort.removeprefix("-")
    there = [row for row in rows if find_field(row, name) is not None]
    there.sort(key=lambda row: find_field(row, name), reverse=sort.startswith("-"))  # type: ignore[arg-type, return-value]
    return [*there, *(row for row in rows if find_field(row, name) is None)]


def paginate(whole: Sequence[T], name: str, most: int, after: str | None) -> tuple[Sequence[T], str]:
    """Return a page of objects of the API, and the cursor of the next page, which is empty on the last one.

    The page begins after the object whose field `name` is `after`.
    """
    names = [str(one[name]) for one in whole]
    first = names.index(after) + 1 if after in names else 0
    end = first + most
    return whole[first:end], names[end - 1] if end < len(names) else ""


def find_field(row: Mapping[str, object], name: str) -> object:
    """Return a field of a row, or one within another; None where it is not there."""
    value: object = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def write_cell(row: JsonDocument, column: Column) -> str:
    """Return a field as a file has it: amounts in whole units of the currency, objects and lists as JSON."""
    value = find_field(row, column.name)
    if value is None:
        return ""
    if column.is_amount:
        return str(to_decimal(int(str(value)), row["currency"]))
    return orjson.dumps(value).decode() if isinstance(value, Mapping | list) else str(value)


def translate(listing: Listing, say: Callable[[str], str]) -> Listing:
    """Return a list with its words in the language that `say` has."""
    columns = tuple(column._replace(called=say(column.called)) for column in listing.columns)
    return listing._replace(columns=columns, filters=tuple(_translate(one, say) for one in listing.filters))


def _translate(one: Filter, say: Callable[[str], str]) -> Filter:
    choices = None if one.choices is None else {value: say(called) for value, called in one.choices.items()}
    return one._replace(called=say(one.called), choices=choices)
