"""Unreadable rows are set aside: the caller continues with the other rows, and operators get one alert for each.

A row is unreadable if one of its values was damaged, or changed by another program. Examples are invalid JSON, a
ciphertext that cannot be decrypted, and a value of another type. A function that reads many rows calls `parse_rows`,
or calls `set_aside` for a single row and continues. The row stays in its table, because it may be repaired.
A list for people is read in pages by `parse_page`, so that a row that is set aside ends no list early.
`jobs/operator_alerts.py` raises the alerts. An alert has the table and the key of the row, but none of its content.

A column type that decrypts values (book_text.py) returns an `UnreadableValue` for a damaged one. The statement still
returns every row, and only the code that uses the damaged value fails.
"""

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar

import orjson

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")

REMEMBERED_MAX = 10_000
"""Rows that are remembered, so that each is reported once. Further rows are not reported."""


class UnreadableRowError(Exception):
    """A row cannot be read. The message is a sentence without any of the row's content."""


UNREADABLE = (UnreadableRowError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors of a function that only parses a row."""


class UnreadableValue:
    """The value of a column that cannot be decrypted. Every use of it raises UnreadableRowError.

    `is None` is false, as a value is stored. The API writes UNREADABLE_TEXT in its place. Nothing else may format it,
    so that it never becomes part of an id, a URL or a sum.
    """

    __slots__ = ("_column",)

    def __init__(self, column: str) -> None:
        self._column = column

    def __repr__(self) -> str:
        return f"<unreadable {self._column}>"

    def _refuse(self, *_: object) -> NoReturn:
        raise UnreadableRowError(f"{self._column} of a row cannot be decrypted")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Libraries probe for such names, and expect this error.
            raise AttributeError(name)
        self._refuse()

    __str__ = __format__ = __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __add__ = __radd__ = _refuse
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __hash__ = _refuse


UNREADABLE_TEXT = "(unreadable)"
"""The text that the API writes instead of an unreadable value."""


def format_unreadable(value: object) -> str:
    """Return UNREADABLE_TEXT for an unreadable value. It is the `default` of orjson: other values raise TypeError."""
    if isinstance(value, UnreadableValue):
        return UNREADABLE_TEXT
    raise TypeError


class UnreadableRow(NamedTuple):
    """A row that was set aside."""

    table: str
    key: str
    """The values of its primary key, or a hash of the stored value if the reader does not know the key."""
    why: str
    """The name of the error's class. The error's text is left out because it may quote the row."""
    column: str = ""
    stored: str = ""
    """The unreadable column and its stored value. They identify the row if its key is unknown."""


_remembered: dict[tuple[str, str], None] = {}
_untold: list[UnreadableRow] = []


def set_aside(table: str, key: str, error: Exception) -> None:
    """Log an unreadable row, and store it for an alert to operators. The caller continues without the row."""
    _remember(UnreadableRow(table, key, type(error).__name__))


def set_aside_value(name: str, stored: str, error: Exception) -> UnreadableValue:
    """Set the row of a stored value aside, and return a substitute for the value. `name` is `table.column`."""
    table, _, column = name.partition(".")
    key = f"{column} {hash_unreadable(stored)}"
    _remember(UnreadableRow(table, key, type(error).__name__, column, stored))
    return UnreadableValue(name)


def hash_unreadable(value: str) -> str:
    """Return the start of the hash of a stored value. It identifies a row whose key is unknown."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]


@contextmanager
def reading_row(table: str, key: str) -> Iterator[None]:
    """Read one row in a block. An error of its content sets the row aside and raises UnreadableRowError.

    Use it for a row that the result depends on: the row of one customer, or one that a sum of money needs.
    """
    try:
        yield
    except UNREADABLE as error:
        set_aside(table, key, error)
        raise UnreadableRowError(f"the row {key} of {table} cannot be read") from error


def parse_object(stored: str) -> JsonObject:
    """Return a JSON object; raises ValueError for any other JSON."""
    parsed: JsonObject = orjson.loads(stored)
    if not isinstance(parsed, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  # As for JSON that is cut off.
    return parsed


def parse_texts(stored: str) -> list[str]:
    """Return the texts of a JSON list; raises ValueError for any other JSON."""
    texts: list[str] = orjson.loads(stored)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("it is no list of texts")
    return texts


def parse_word(stored: str, words: Collection[str]) -> str:
    """Return a stored word; raises ValueError for one that is none of `words`."""
    if stored not in words:
        raise ValueError("it is none of the words that it may be")
    return stored


def _remember(row: UnreadableRow) -> None:
    if (row.table, row.key) in _remembered or len(_remembered) >= REMEMBERED_MAX:
        return
    _remembered[row.table, row.key] = None
    _untold.append(row)
    log.get_logger().error("a row cannot be read, and is set aside", table=row.table, key=row.key, why=row.why)


def list_untold() -> list[UnreadableRow]:
    """Return the rows that were set aside and have no alert yet."""
    return _untold.copy()


def forget_untold(rows: list[UnreadableRow]) -> None:
    """Forget rows that `list_untold` returned, as their alerts are stored."""
    del _untold[: len(rows)]


def parse_rows(
    table: str, rows: Iterable[Row], parse: Callable[[Row], Parsed], get_key: Callable[[Row], object]
) -> list[Parsed]:
    """Return the result of `parse` for each row of a table. Rows that `parse` cannot read are set aside."""
    parsed = []
    for row in rows:
        try:
            parsed.append(parse(row))
        except UNREADABLE as error:
            set_aside(table, str(get_key(row)), error)
    return parsed


async def skip_unreadable(load: Awaitable[Parsed]) -> Parsed | None:
    """Return the result of `load` for one of many customers, or None if a row that it needs is unreadable."""
    try:
        return await load
    except UnreadableRowError:
        return None


class ReadPage(list[Parsed]):
    """The readable rows of a page. It may be shorter than requested, or empty, if rows were set aside."""

    def __init__(self, rows: Iterable[Parsed], next_cursor: Any) -> None:
        super().__init__(rows)
        self.next = next_cursor
        """The cursor of the next page, or None if no row follows, readable or not."""


def parse_page(
    table: str,
    rows: Sequence[Row],
    limit: int,
    parse: Callable[[Row], Parsed],
    get_key: Callable[[Row], object],
) -> ReadPage[Parsed]:
    """Return the page of the first `limit` rows. The caller selected one row more; a row's key is the cursor."""
    return ReadPage(parse_rows(table, rows[:limit], parse, get_key), find_cursor(rows, limit, get_key))


def find_cursor(rows: Sequence[Row], limit: int, get_key: Callable[[Row], object]) -> Any:
    """Return the key of the last row of a page of `limit` rows, if there is a row behind it."""
    return get_key(rows[limit - 1]) if len(rows) > limit else None
