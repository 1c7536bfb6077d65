"""Types of statements and rows whose columns are known only when the statement is built; locks of rows."""

from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa

AnySelect: TypeAlias = "sa.Select[*tuple[Any, ...]]"
AnyColumn: TypeAlias = sa.ColumnElement[Any]
AnyRow: TypeAlias = sa.Row[Any]

Selection = TypeVar("Selection", bound=AnySelect)


def lock_rows(statement: Selection, *, of: sa.Table | None = None, skip_locked: bool = False) -> Selection:
    """Return a statement that locks its rows, or those `of` a table of a join, until the transaction ends, in the order
    of docs/design/row-locks.md.

    Rows that refer to a locked one can be inserted meanwhile (FOR NO KEY UPDATE): else a message to a customer's
    webhooks, or an invoice, would wait for the customer's row out of this order.
    """
    return statement.with_for_update(of=of, skip_locked=skip_locked, key_share=True)
