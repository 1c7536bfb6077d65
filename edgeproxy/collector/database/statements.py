"""Types of statements and rows whose columns are determined when the statement is built; locks of rows."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

AnySelect: TypeAlias = "sa.Select[*tuple[Any, ...]]"
AnyColumn: TypeAlias = sa.ColumnElement[Any]
AnyRow: TypeAlias = sa.Row[Any]

Selection = TypeVar("Selection", bound=AnySelect)


def lock_rows(statement: Selection, *, of: sa.Table | None = None, skip_locked: bool = False) -> Selection:
    """Return a statement that locks its rows, or the rows of table `of` in a join, until the transaction ends.

    The order of locks follows docs/design/row-locks.md. FOR NO KEY UPDATE permits inserts of rows that refer to a
    locked row. Otherwise a webhook message or an invoice would wait for the customer's row and break that order.
    """
    return statement.with_for_update(of=of, skip_locked=skip_locked, key_share=True)


def unnest(arrays: Mapping[str, AnyColumn]) -> AnySelect:
    """Return rows made of arrays, one array per column. So one statement handles any number of rows."""
    made = sa.func.unnest(*arrays.values()).table_valued(*arrays)
    return sa.select(*made.render_derived().columns)
