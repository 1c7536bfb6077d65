"""Types of statements and rows whose columns are known only when the statement is built."""

from typing import Any, TypeAlias

import sqlalchemy as sa

AnySelect: TypeAlias = "sa.Select[*tuple[Any, ...]]"
AnyColumn: TypeAlias = sa.ColumnElement[Any]
AnyRow: TypeAlias = sa.Row[Any]
