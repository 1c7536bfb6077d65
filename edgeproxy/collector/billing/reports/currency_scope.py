"""The scope of a report in one currency: its books, and the customers charged in it."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import customers, series
from edgeproxy.config.collector.currency_units import DECIMALS, USD


class CurrencyScope(NamedTuple):
    """A currency, and the rule for the usage that belongs to it."""

    currency: str = USD
    is_default: bool = True
    """True if customers without a chosen currency belong to this one."""
    is_only: bool = True
    """True if no customer is charged in another currency."""

    def is_charged_in(self, column: sa.ColumnElement[str] = customers.c.id) -> sa.ColumnElement[bool]:
        """Return the condition for customers of the scope, by a column with their ids."""
        if self.is_default:
            others = sa.select(customers.c.id).where(customers.c.currency != self.currency)
            return column.not_in(others)
        return column.in_(sa.select(customers.c.id).where(customers.c.currency == self.currency))

    def list_series_conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions for series with usage of the scope; empty if it includes all usage.

        Usage of customers unknown to the database belongs to the default currency.
        """
        if self.is_default and self.is_only:
            return []
        if self.is_default:
            others = sa.select(customers.c.name).where(customers.c.currency != self.currency)
            return [series.c.customer.not_in(others)]
        return [series.c.customer.in_(sa.select(customers.c.name).where(customers.c.currency == self.currency))]


IN_USD: Final = CurrencyScope()
"""The scope of an installation that charges only in US dollars."""


async def list_scopes(connection: AsyncConnection, default: str) -> list[CurrencyScope]:
    """Return the scope of each currency that customers are charged in, `default` first."""
    statement = sa.select(customers.c.currency).distinct().where(customers.c.currency.is_not(None))
    codes = set(await connection.scalars(statement))
    return build_scopes(codes & DECIMALS.keys(), default)


def build_scopes(codes: Iterable[str], default: str) -> list[CurrencyScope]:
    """Return the scopes of these currencies and of `default`, which comes first."""
    others = sorted({*codes} - {default})
    return [CurrencyScope(default, True, not others), *(CurrencyScope(code, False, False) for code in others)]
