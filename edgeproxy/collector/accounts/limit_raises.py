"""Temporary raises of customers' limits: rates and concurrency are multiplied until the raise ends.

A customer has at most one raise. Edges receive it with its end and stop applying it then, even if no collector is
available. `end_due` removes it from the database and the directory.
"""

import time
from typing import Annotated, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import BeforeValidator, Field, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers, documents
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.fields import Text, parse_span
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.quota_tables import limit_raises
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.encryption.rows import fetch_rows, seal_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.field_codes import NOT_OFFERED, SPAN_OUT_OF_RANGE
from edgeproxy.config.units import format_value, value_error

HOUR_SECONDS = 3600
SECONDS_MIN, SECONDS_MAX = HOUR_SECONDS, 24 * HOUR_SECONDS
SPAN_HINT = "a time from 1h to 24h"
FACTORS = (2, 5)
ENDED_MAX = 100
"""The most raises that one transaction ends."""


def parse_raise_span(value: object) -> int:
    """Parse a time from one hour to a day into seconds. Raises a value error."""
    seconds = parse_span(value)
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise value_error(f"{format_value(str(value))} is out of range", SPAN_HINT, SPAN_OUT_OF_RANGE)
    return seconds


SPAN_SCHEMA = {"type": "string", "pattern": r"^[0-9]{1,5} ?(s|min|h|d|day)$", "examples": ["8h"]}


def parse_factor(value: object) -> int:
    """Return one of FACTORS. Raises a value error."""
    if type(value) is not int or value not in FACTORS:
        raise value_error("cannot be used", " or ".join(map(str, FACTORS)), NOT_OFFERED)
    return value


class RaiseLimitsRequest(Body):
    """A raise of a customer's rates and concurrency. Quotas, credits and caps are not raised."""

    factor: Annotated[Literal[2, 5], BeforeValidator(parse_factor)]
    """The multiple of the usual limits."""
    span: Annotated[int, BeforeValidator(parse_raise_span), WithJsonSchema(SPAN_SCHEMA)] = Field(alias="for")
    """How long they are raised, from 1h to 24h."""
    why: Text
    """The reason, for the audit log."""


class LimitRaise(TypedDict):
    """A raise of a customer's limits."""

    factor: int
    """The multiple of the usual rates and concurrency."""
    created_at: str
    """The time when they were raised."""
    ends_at: str
    """The time when the usual limits apply again."""
    by: str | None
    """The operator who raised them; null if a customer asks."""
    why: str | None
    """The reason; null if a customer asks."""


class CustomerLimitRaise(TypedDict):
    """A customer, and the raise of its limits."""

    customer: str
    """The customer's name."""
    raised: LimitRaise | None
    """The raise; null if the usual limits apply."""


class RaiseRow(NamedTuple):
    """A row of `limit_raises`."""

    customer: str
    """The id of the customer."""
    factor: int
    created_at: int
    ends_at: int
    by: str
    why: str


class RaiseStatus(NamedTuple):
    """The number of raises and their first end."""

    customers: int
    first_end: float | None
    """The Unix second when the first raise ends, or None if there is none."""


def to_response(row: RaiseRow | None, *, own: bool = False) -> LimitRaise | None:
    """Return a raise in the form of the API. With `own` it is for its customer, without actor and reason."""
    if row is None:
        return None
    return {
        "factor": row.factor,
        "created_at": format_timestamp(row.created_at),
        "ends_at": format_timestamp(row.ends_at),
        "by": None if own else row.by,
        "why": None if own else row.why,
    }


async def fetch_raise(connection: AsyncConnection, ref: str, *, own: bool = False) -> CustomerLimitRaise:
    """Return a customer with its raise, if that has not ended. Raises ChangeRejectedError."""
    customer = await customers.get_row(connection, ref)
    row = await _find_row(connection, customer.id)
    current = None if row is None or row.ends_at <= now_ms() else row
    return {"customer": customer.name, "raised": to_response(current, own=own)}


async def raise_limits(
    connection: AsyncConnection, caller: Caller, ref: str, new: RaiseLimitsRequest
) -> CustomerLimitRaise:
    """Raise a customer's limits, replacing an existing raise. Raises ChangeRejectedError."""
    customer = await customers.get_row(connection, ref, lock=True)
    if customer.deleting_since is not None:
        raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")
    before = await _find_row(connection, customer.id)
    now = now_ms()
    row = RaiseRow(customer.id, new.factor, now, now + new.span * 1000, caller.actor, new.why)
    await _delete(connection, customer.id)
    await connection.execute(sa.insert(limit_raises), await seal_rows(connection, limit_raises.name, [row._asdict()]))
    return await _record(connection, caller, customer.name, before, row)


async def end_raise(connection: AsyncConnection, caller: Caller, ref: str) -> CustomerLimitRaise:
    """End the raise of a customer's limits, if there is one. Raises ChangeRejectedError."""
    customer = await customers.get_row(connection, ref, lock=True)
    before = await _find_row(connection, customer.id)
    if before is None:
        return {"customer": customer.name, "raised": None}
    await _delete(connection, customer.id)
    return await _record(connection, caller, customer.name, before, None)


async def fetch_status(connection: AsyncConnection) -> RaiseStatus:
    """Return the number of raises, and the first end."""
    statement = sa.select(sa.func.count(), sa.func.min(limit_raises.c.ends_at))
    count, first = (await connection.execute(statement)).one()
    return RaiseStatus(count, None if first is None else first / 1000)


async def end_due(connection: AsyncConnection, now: int) -> list[str]:
    """End raises that are over at this Unix millisecond, at most ENDED_MAX. Return the names of their customers."""
    statement = (
        sa.select(customers_table.c.name, *limit_raises.c)
        .join_from(limit_raises, customers_table, customers_table.c.id == limit_raises.c.customer)
        .where(limit_raises.c.ends_at <= now)
        .order_by(limit_raises.c.ends_at)
        .limit(ENDED_MAX)
        .with_for_update(of=limit_raises, skip_locked=True)
    )
    names = []
    for columns in await fetch_rows(connection, limit_raises.name, statement):
        name, row = str(columns.pop("name")), RaiseRow(**columns)  # type: ignore[arg-type]
        await _delete(connection, row.customer)
        await _record(connection, Caller("collector"), name, row, None)
        names.append(name)
    return names


async def end_all_due(database: Database) -> RaiseStatus:
    """End all raises that are over. Return the status of the remaining ones."""
    async with database.reading() as connection:
        status = await fetch_status(connection)
    while status.first_end is not None and status.first_end <= time.time():
        async with database.writing() as connection:
            ended = await end_due(connection, now_ms())
        async with database.reading() as connection:
            status = await fetch_status(connection)
        if not ended:  # Another collector is ending them now.
            break
    return status


async def _find_row(connection: AsyncConnection, customer: str) -> RaiseRow | None:
    statement = sa.select(limit_raises).where(limit_raises.c.customer == customer)
    rows = await fetch_rows(connection, limit_raises.name, statement)
    return RaiseRow(**rows[0]) if rows else None  # type: ignore[arg-type]


async def _delete(connection: AsyncConnection, customer: str) -> None:
    await connection.execute(sa.delete(limit_raises).where(limit_raises.c.customer == customer))


async def _record(
    connection: AsyncConnection, caller: Caller, name: str, before: RaiseRow | None, after: RaiseRow | None
) -> CustomerLimitRaise:
    """Publish a customer's limits to edges and append the audit entry. Return the customer with its raise."""
    await documents.enqueue_changes(connection, "customer", [name])
    was, now = (raised if raised is None else {**raised} for raised in map(to_response, (before, after)))
    action = "limits.raise" if after is not None else "limits.revert"
    await audit.append_entry(connection, caller, AuditEntry(action, name, was, now))
    return {"customer": name, "raised": to_response(after)}
