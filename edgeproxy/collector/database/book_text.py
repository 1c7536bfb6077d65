"""Text of the books: the type of columns that are encrypted by the key of a calendar year, where `encryption` is set.

A value is sealed when it goes into a statement and opened when it is read, by the cipher of the engine
(`set_book_cipher`; encryption/book_keys.py has it), so that no statement that reads or writes such a column says so.
What has no cipher, as `encryption` is not set, and what is still in the clear, is stored and read as it is. Rows are
found by `match_book_text`: any other comparison would miss values that are sealed, and is an error.

A damaged value is read as an `UnreadableValue`: its row is set aside, and the rows beside it are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import operators

from edgeproxy.collector.database.statements import AnyColumn
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, set_aside_value

SEALED = "book1:"
"""The beginning of a sealed value, before the year of its key."""


class BookValueError(UnreadableRowError):
    """A value of the books cannot be decrypted: it was changed, or there is no key of its year."""


class BookKeyEndedError(BookValueError):
    """The key of a year is destroyed, as its books are over."""


class BookCipher(Protocol):
    """What seals and opens values, each bound to its column by a name such as `invoices.url`."""

    def seal(self, text: str, column: str, *, is_looked_up: bool, year: int | None = None) -> str:
        """Return the sealed value, by the key of this year or else of now; raises KeysUnavailableError.

        With `is_looked_up` equal values of a year are sealed equally.
        """

    def open(self, value: str, column: str, *, is_looked_up: bool) -> str:
        """Return what was sealed; raises KeysUnavailableError and BookValueError."""

    def list_sealed(self, text: str, column: str) -> Sequence[str]:
        """List how a value that is looked up is sealed by the key of each year; raises KeysUnavailableError."""


_ciphers: "WeakKeyDictionary[Dialect, BookCipher]" = WeakKeyDictionary()


def set_book_cipher(engine: sa.Engine, cipher: BookCipher) -> None:
    """Have the statements of an engine seal and open by this cipher."""
    _ciphers[engine.dialect] = cipher
    sa.event.listen(engine, "handle_error", _unwrap)


def _unwrap(context: sa.engine.ExceptionContext) -> Exception | None:
    """Return why a value could not be sealed, before its statement was sent, as the cipher has raised it; else None."""
    original = context.original_exception
    if (
        isinstance(original, OSError | UnreadableRowError)
        and context.execution_context is None
        and context.statement is not None
    ):
        return type(original)(*original.args)
    return None


def find_book_cipher(connection: AsyncConnection) -> BookCipher | None:
    """Return the cipher of a connection; None where nothing is encrypted."""
    return _ciphers.get(connection.dialect)


class _Comparator(sa.types.TypeDecorator.Comparator[str]):
    """Compares with nothing but NULL and the empty text, which are stored as they are."""

    def operate(self, op: operators.OperatorType, *other: object, **options: object) -> AnyColumn:
        is_bare = all(one is None or isinstance(one, sa.Null) or (isinstance(one, str) and not one) for one in other)
        if not is_bare:
            raise TypeError(f"{self.expr} may be sealed: compare it by match_book_text")
        return super().operate(op, *other, **options)


class BookText(sa.types.TypeDecorator[str]):
    """A text of the books, in the column of this name (`table.column`); sealed where there is a cipher."""

    impl = sa.Text
    cache_ok = True
    comparator_factory = _Comparator

    def __init__(self, column: str, *, is_looked_up: bool = False) -> None:
        super().__init__()
        self.column = column
        self.is_looked_up = is_looked_up

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return a value as it is stored."""
        if not value:
            return value
        if (cipher := _ciphers.get(dialect)) is not None:
            return cipher.seal(value, self.column, is_looked_up=self.is_looked_up)
        return f" {value}" if value.startswith(SEALED) else value  # Somebody's text must not become a sealed one.

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Return a value as it is meant, or an UnreadableValue, which no type says: each use of it is an error."""
        if not value or not value.startswith(SEALED) or (cipher := _ciphers.get(dialect)) is None:
            return value
        try:
            return cipher.open(value, self.column, is_looked_up=self.is_looked_up)
        except BookValueError as error:
            return self._read_damaged(value, error)

    def _read_damaged(self, value: str, error: BookValueError) -> str:
        return cast(str, set_aside_value(self.column, value, error))


class JournalText(BookText):
    """A JSON of the journal, whose hashes are over what is stored: it is sealed before it goes into a statement.

    Without the key of its year it has no fields, as once it is cleared.
    """

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return a value as it is given."""
        return value

    def _read_damaged(self, value: str, error: BookValueError) -> str:
        return "{}" if isinstance(error, BookKeyEndedError) else super()._read_damaged(value, error)


def list_book_columns(metadata: sa.MetaData) -> Mapping[str, Mapping[str, BookText]]:
    """List the columns of the books by table, each with its type, without the journal, of which nothing is changed."""

    def of_table(table: sa.Table) -> Iterator[tuple[str, BookText]]:
        for column in table.columns:
            if isinstance(column.type, BookText) and not isinstance(column.type, JournalText):
                yield column.name, column.type

    tables = {name: dict(of_table(table)) for name, table in metadata.tables.items()}
    return {name: columns for name, columns in tables.items() if columns}


def as_stored(column: sa.ColumnElement[str] | sa.ColumnElement[str | None]) -> sa.ColumnElement[str]:
    """Return a column of the books as it is stored."""
    return sa.type_coerce(column, sa.Text())


def match_book_text(connection: AsyncConnection, column: AnyColumn, *values: str) -> sa.ColumnElement[bool]:
    """Return the condition that a column which is looked up has one of these values, sealed in any year or in the
    clear."""
    cipher, stored = find_book_cipher(connection), list(values)
    if cipher is not None:
        assert isinstance(column.type, BookText)
        for value in values:
            stored += cipher.list_sealed(value, column.type.column)
    return as_stored(column).in_(stored)
