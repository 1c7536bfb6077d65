"""The figures for sorting and filtering the list of customers, stored with each customer.

Each is a copy of a fact that has its home elsewhere, and is written with it or by a job: the plan when it changes, the
last call with the last use of the keys, the cap when its usage is counted, overdue amounts each minute, and the cost of
the period in rounds over all subscribers.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.page_order import by_character
from edgeproxy.collector.database.schema import DAY, customers, keys

PLAN: sa.ColumnElement[str] = sa.func.coalesce(customers.c.plan, sa.literal_column("''"))
SPENT: sa.ColumnElement[int] = sa.func.coalesce(customers.c.spent, sa.literal_column("-1"))
CAP_USED: sa.ColumnElement[int] = sa.func.coalesce(customers.c.cap_used, sa.literal_column("-1"))
LAST_CALL: sa.ColumnElement[int] = sa.func.coalesce(customers.c.last_call_on, sa.literal_column("0"))
"""The nullable figures in the form of their indexes. Customers without the figure come first in ascending order."""


class CapUse(NamedTuple):
    """The use of a customer's spending cap."""

    used: int
    """Hundredths of a percent of the cap, rounded down, but at least 1 if there is any usage."""
    until: int
    """The Unix second when the cap's period ends."""

    @property
    def rounded(self) -> "CapUse":
        """The use in whole percent; anything below one percent is 1."""
        return CapUse(self.used // 100 * 100 or min(self.used, 1), self.until)


class FigureFilters(NamedTuple):
    """Filters by figures; None selects all customers."""

    plan: str | None = None
    """The name of the plan; empty: no plan."""
    min_spent: int | None = None
    min_overdue: int | None = None
    min_cap_percent: int | None = None
    not_called_days: int | None = None
    """Days without a call, today included."""

    @property
    def are_of_money(self) -> bool:
        """Return whether a filter reveals amounts."""
        return any(value is not None for value in self[:-1])


def list_conditions(connection: AsyncConnection, filters: FigureFilters, now: float) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of filters at the Unix second `now`. Each can use the index of its figure."""
    conditions: list[sa.ColumnElement[bool]] = []
    if filters.plan is not None:
        conditions.append(by_character(connection, PLAN) == filters.plan)
    if filters.min_spent is not None:
        conditions.append(filters.min_spent <= SPENT)
    if filters.min_overdue is not None:
        conditions.append(customers.c.overdue >= filters.min_overdue)
    if filters.min_cap_percent is not None:
        conditions.append(filters.min_cap_percent * 100 <= CAP_USED)
    if filters.not_called_days is not None:
        conditions.append((int(now) // DAY - filters.not_called_days + 1) * DAY > LAST_CALL)
    return conditions


def build_cap_use(used: int, allowed: int, until: int) -> CapUse:
    """Return the use of a cap whose period ends at the Unix second `until`."""
    return CapUse(max(used * 10_000 // allowed, 1 if used else 0) if allowed else 10_000, until)


async def record_plan(connection: AsyncConnection, customer: str, plan: str | None) -> None:
    """Record the name of a customer's plan, by customer id. Without a plan it spends nothing in a period."""
    ended = {"spent": None, "spent_at": None} if plan is None else {}
    await connection.execute(sa.update(customers).where(customers.c.id == customer).values(plan=plan, **ended))


async def record_spent(connection: AsyncConnection, spent: Mapping[str, int], at: int) -> None:
    """Record the cost of the period so far of customers with a plan, by name, as of the Unix second `at`."""
    await _update(connection, {name: (cost, at) for name, cost in spent.items()}, ("spent", "spent_at"), PLAN != "")


async def record_overdue(connection: AsyncConnection, overdue: Mapping[str, int]) -> None:
    """Record the overdue amounts of all customers that have some, by name. All others have none."""
    stored = sa.select(customers.c.name, customers.c.overdue).where(customers.c.overdue > 0)
    before = {row.name: row.overdue for row in await connection.execute(stored)}
    amounts = {name: overdue.get(name, 0) for name in before.keys() | overdue.keys()}
    changed = {name: (amount,) for name, amount in amounts.items() if amount != before.get(name, 0)}
    await _update(connection, changed, ("overdue",))


async def record_cap_uses(connection: AsyncConnection, uses: Mapping[str, CapUse]) -> None:
    """Record the use of caps by the name of their customer."""
    await _update(connection, uses, ("cap_used", "cap_until"))


async def end_caps(connection: AsyncConnection, now: float) -> None:
    """Delete the use of caps whose period is over at the Unix second `now`."""
    over = sa.select(customers.c.name).where(customers.c.cap_until <= int(now))
    names = await connection.scalars(over)
    await _update(connection, dict.fromkeys(names, (None, None)), ("cap_used", "cap_until"))


async def record_last_calls(connection: AsyncConnection, days: Mapping[str, int]) -> None:
    """Record the last call of customers: the days of the last use of their keys, by SHA-256."""
    owners = sa.select(customers.c.name, keys.c.sha256).join_from(customers, keys, keys.c.customer == customers.c.id)
    latest: dict[str, int] = {}
    for name, digest in await connection.execute(owners.where(keys.c.sha256.in_(days))):
        latest[name] = max(latest.get(name, 0), days[digest])
    is_later = sa.bindparam("last_call_on") > LAST_CALL
    await _update(connection, {name: (day,) for name, day in latest.items()}, ("last_call_on",), is_later)


async def _update(
    connection: AsyncConnection,
    values: Mapping[str, Sequence[int | None]],
    names: Sequence[str],
    *conditions: sa.ColumnElement[bool],
) -> None:
    """Write columns of customers by name. All transactions lock customers in this order."""
    rows = [{"key": key, **dict(zip(names, row, strict=True))} for key, row in sorted(values.items())]
    if rows:
        statement = sa.update(customers).where(customers.c.name == sa.bindparam("key"), *conditions)
        await connection.execute(statement.values({name: sa.bindparam(name) for name in names}), rows)
