"""Q: the quantity of a meter that a customer used in a span, a whole number from the database alone."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.ledger import readings, rollup
from edgeproxy.collector.ledger.aggregates import ReadAs
from edgeproxy.collector.ledger.queries import LedgerQuery, build_statement, format_rows

NONE = ""
"""The dimension value of usage without the dimension."""


async def fetch_quantity(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    since: int,
    until: int,
    *,
    aggregate: ReadAs = "sum",
    dimension: str | None = None,
    value: str = NONE,
) -> int:
    """Return the customer's usage of the meter within [since, until), Unix seconds at whole minutes.

    With a `dimension`, only usage with this `value` of it counts; an empty value selects usage without the dimension.
    Raises queries.InvalidQueryError if the requested minutes or hours are no longer stored.
    """
    by_value = await fetch_quantities(connection, customer, meter, since, until, aggregate=aggregate, by=dimension)
    return by_value.get(value if dimension is not None else NONE, 0)


async def fetch_quantities(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    since: int,
    until: int,
    *,
    aggregate: ReadAs = "sum",
    by: str | None = None,
    without: Sequence[tuple[int, int]] = (),
) -> dict[str, int]:
    """Return quantities by value of the dimension `by`, or everything under the empty value if it is None.

    Unique items count only outside the spans `without`.
    """
    if until <= since:
        return {}
    if aggregate != "sum":
        names = () if by is None else (by,)
        whole = await readings.fetch_quantities(connection, customer, meter, (since, until), aggregate, names, without)
        return {values[0] if values else NONE: value for values, value in whole.items()}
    question = LedgerQuery(customer, meter, since, until, () if by is None else (by,))
    rows = (await connection.execute(build_statement(question, await rollup.fetch_state(connection)))).all()
    return {str(row[by]) if by is not None else NONE: row["value"] for row in format_rows(question.by, rows)}
