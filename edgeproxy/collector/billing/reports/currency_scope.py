"""The scope of a report in one currency: its books, and the customers who are charged in it."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import customers, series
from edgeproxy.config.collector.currency_units import USD


class CurrencyScope(NamedTuple):
    """A currency, and which usage is that of its customers."""

    currency: str = USD
    is_default: bool = True
    """Whether customers who have chosen no currency are among its customers."""
    is_only: bool = True
    """Whether no customer is charged in another currency."""

    def is_charged_in(self, column: sa.ColumnElement[str] = customers.c.id) -> sa.ColumnElement[bool]:
        """Return the condition for customers of the scope, by a column with their ids."""
        if self.is_default:
            others = sa.select(customers.c.id).where(customers.c.currency != self.currency)
            return column.not_in(others)
        return column.in_(sa.select(customers.c.id).where(customers.c.currency == self.currency))

    def list_series_conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions for series of usage of the scope: none where all usage is. Usage of customers whom the
        database does not know is of the default currency."""
        if self.is_default and self.is_only:
            return []
        if self.is_default:
            others = sa.select(customers.c.name).where(customers.c.currency != self.currency)
            return [series.c.customer.not_in(others)]
        return [series.c.customer.in_(sa.select(customers.c.name).where(customers.c.currency == self.currency))]


IN_USD: Final = CurrencyScope()
"""The scope of an installation that charges in US dollars alone."""


async def list_scopes(connection: AsyncConnection, default: str) -> list[CurrencyScope]:
    """Return the scope of each currency in which customers are charged, that of the `default` one first."""
    statement = sa.select(customers.c.currency).distinct().where(customers.c.currency.is_not(None))
    codes = set((await connection.execute(statement)).scalars())
    return build_scopes(codes, default)


def build_scopes(codes: Iterable[str], default: str) -> list[CurrencyScope]:
    """Return the scopes of these currencies, and of the `default` one, which is first."""
    others = sorted({*codes} - {default})
    return [CurrencyScope(default, True, not others), *(CurrencyScope(code, False, False) for code in others)]
