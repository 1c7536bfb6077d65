"""Text of the books: a column type that encrypts with the key of a calendar year, if `encryption` is set.

The engine's cipher (`set_book_cipher`) encrypts a value when it is bound to a statement, and decrypts it when it is
read, so statements need not mention encryption. encryption/book_keys.py implements the cipher. Without a cipher
(`encryption` is not set) values are stored unchanged, and stored plain text is read unchanged. Rows are found by
`match_book_text`. Any other comparison would miss encrypted values and is an error.

A damaged value is read as an `UnreadableValue`: its row is set aside, and the other rows are read.
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
"""The beginning of an encrypted value, before the year of its key."""


class BookValueError(UnreadableRowError):
    """A value of the books cannot be decrypted: it was changed, or its year's key does not exist."""


class BookKeyEndedError(BookValueError):
    """The key of a year has been destroyed, because retention of its books has ended."""


class BookCipher(Protocol):
    """Encrypts and decrypts values. Each is bound to its column by a name, for example `invoices.url`."""

    def seal(self, text: str, column: str, *, is_looked_up: bool, year: int | None = None) -> str:
        """Return the value, encrypted with the key of `year` or of the current year. Raises KeysUnavailableError.

        With `is_looked_up`, equal values of a year have equal ciphertexts.
        """

    def open(self, value: str, column: str, *, is_looked_up: bool) -> str:
        """Return the plain text. Raises KeysUnavailableError and BookValueError."""

    def list_sealed(self, text: str, column: str) -> Sequence[str]:
        """List the ciphertexts of a looked-up value, one per year with a key. Raises KeysUnavailableError."""


_ciphers: "WeakKeyDictionary[Dialect, BookCipher]" = WeakKeyDictionary()


def set_book_cipher(engine: sa.Engine, cipher: BookCipher) -> None:
    """Make the statements of an engine encrypt and decrypt with this cipher."""
    _ciphers[engine.dialect] = cipher
    sa.event.listen(engine, "handle_error", _unwrap)


def _unwrap(context: sa.engine.ExceptionContext) -> Exception | None:
    """Return the cipher's own error if encrypting a value failed before the statement was sent; otherwise None."""
    original = context.original_exception
    if (
        isinstance(original, OSError | UnreadableRowError)
        and context.execution_context is None
        and context.statement is not None
    ):
        return type(original)(*original.args)
    return None


def find_book_cipher(connection: AsyncConnection) -> BookCipher | None:
    """Return the cipher of a connection, or None if nothing is encrypted."""
    return _ciphers.get(connection.dialect)


class _Comparator(sa.types.TypeDecorator.Comparator[str]):
    """Compares only with NULL and the empty text. These are never encrypted."""

    def operate(self, op: operators.OperatorType, *other: object, **options: object) -> AnyColumn:
        is_bare = all(one is None or isinstance(one, sa.Null) or (isinstance(one, str) and not one) for one in other)
        if not is_bare:
            raise TypeError(f"{self.expr} may be sealed: compare it by match_book_text")
        return super().operate(op, *other, **options)


class BookText(sa.types.TypeDecorator[str]):
    """A text of the books in the column `column` (`table.column`), encrypted if there is a cipher."""

    impl = sa.Text
    cache_ok = True
    comparator_factory = _Comparator

    def __init__(self, column: str, *, is_looked_up: bool = False) -> None:
        super().__init__()
        self.column = column
        self.is_looked_up = is_looked_up

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the value to store."""
        if not value:
            return value
        if (cipher := _ciphers.get(dialect)) is not None:
            return cipher.seal(value, self.column, is_looked_up=self.is_looked_up)
        return f" {value}" if value.startswith(SEALED) else value  # A plain text must not look like an encrypted one.

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the plain value, or an UnreadableValue. The type hides the latter: any use of it raises an error."""
        if not value or not value.startswith(SEALED) or (cipher := _ciphers.get(dialect)) is None:
            return value
        try:
            return cipher.open(value, self.column, is_looked_up=self.is_looked_up)
        except BookValueError as error:
            return self._read_damaged(value, error)

    def _read_damaged(self, value: str, error: BookValueError) -> str:
        return cast(str, set_aside_value(self.column, value, error))


class JournalText(BookText):
    """JSON of the journal. It is encrypted before it is bound, because the journal's hashes cover the stored text.

    If the key of its year is destroyed, it reads as an empty object, like cleared details.
    """

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the value unchanged."""
        return value

    def _read_damaged(self, value: str, error: BookValueError) -> str:
        return "{}" if isinstance(error, BookKeyEndedError) else super()._read_damaged(value, error)


def list_book_columns(metadata: sa.MetaData) -> Mapping[str, Mapping[str, BookText]]:
    """List the columns of the books with their types, by table. The journal is left out, because it never changes."""

    def of_table(table: sa.Table) -> Iterator[tuple[str, BookText]]:
        for column in table.columns:
            if isinstance(column.type, BookText) and not isinstance(column.type, JournalText):
                yield column.name, column.type

    tables = {name: dict(of_table(table)) for name, table in metadata.tables.items()}
    return {name: columns for name, columns in tables.items() if columns}


def as_stored(column: sa.ColumnElement[str] | sa.ColumnElement[str | None]) -> sa.ColumnElement[str]:
    """Return a column of the books without decryption."""
    return sa.type_coerce(column, sa.Text())


def match_book_text(connection: AsyncConnection, column: AnyColumn, *values: str) -> sa.ColumnElement[bool]:
    """Return the condition that a looked-up column has one of these values, as plain text or encrypted in any year."""
    cipher, stored = find_book_cipher(connection), list(values)
    if cipher is not None:
        assert isinstance(column.type, BookText)
        for value in values:
            stored += cipher.list_sealed(value, column.type.column)
    return as_stored(column).in_(stored)
