"""What edges must know of customers and flags, as lines of the directory (config/directory.py), and the outbox that
says which of them have changed.
"""

import time
from collections.abc import AsyncIterator, Collection, Iterable
from itertools import groupby
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.config.directory import flag_line, line, removed
from edgeproxy.config.models import Customer, Flag, Key, Paused
from edgeproxy.database.delivery_tables import rollout
from edgeproxy.database.schema import customers, directory_outbox, flags, keys

Kind = Literal["customer", "flag"]

PAGE_CUSTOMERS = 500
"""Customers that are read at once."""

DELETED = Paused(why="This customer is being deleted")
"""What edges answer to who is being deleted: were nothing said of the name, a token of an issuer that names a tier
would be served."""

COLUMNS = (
    customers.c.name,
    customers.c.tier,
    customers.c.settings,
    customers.c.deleting_since,
    keys.c.sha256,
    keys.c.scopes,
    keys.c.limits,
    keys.c.expires_at,
)


async def note(connection: AsyncConnection, kind: Kind, names: Iterable[str]) -> None:
    """Put into the outbox that edges must be told of these, in the transaction of whoever changes them."""
    rows = [{"kind": kind, "name": name} for name in names]
    if rows:
        await connection.execute(sa.insert(directory_outbox), rows)


async def document(connection: AsyncConnection, name: str) -> bytes:
    """Return the line of a customer; that of one who is gone removes the customer, and that of one who is being deleted
    refuses."""
    found = await documents(connection, [name])
    return found[0]


async def documents(connection: AsyncConnection, names: Iterable[str]) -> list[bytes]:
    """Return the lines of these customers, in this order."""
    wanted = list(names)
    rows = (await connection.execute(_rows().where(customers.c.name.in_(wanted)))).all()
    free = await is_free(connection)
    made = {name: _line(name, list(some), free=free) for name, some in groupby(rows, lambda row: str(row.name))}
    return [made.get(name) or removed(name) for name in wanted]


async def every(connection: AsyncConnection, *, for_files: bool = False) -> AsyncIterator[tuple[str, bytes]]:
    """Yield the name and the line of each customer, in the order of names, a page in memory at a time.

    `for_files`: with keys that have ended by themselves, which edges need not know, and without customers who are being
    deleted.
    """
    after = ""
    free = not for_files and await is_free(connection)
    while True:
        names = sa.select(customers.c.name).where(customers.c.name > after)
        if for_files:
            names = names.where(customers.c.deleting_since.is_(None))
        page = list((await connection.execute(names.order_by(customers.c.name).limit(PAGE_CUSTOMERS))).scalars())
        if not page:
            return
        between: sa.ColumnElement[bool] = customers.c.name.between(page[0], page[-1])
        if for_files:
            between &= customers.c.deleting_since.is_(None)
        rows = (await connection.execute(_rows(expired=for_files).where(between))).all()
        for name, some in groupby(rows, lambda row: str(row.name)):
            yield name, _line(name, list(some), free=free)
        after = page[-1]


async def customer(connection: AsyncConnection, name: str) -> Customer | None:
    """Return a customer as edge.yaml would have it; None where there is none of this name."""
    there = (customers.c.name == name) & customers.c.deleting_since.is_(None)
    said = (await connection.execute(sa.select(customers.c.settings).where(there))).scalar_one_or_none()
    return None if said is None else Customer.model_validate_json(said)


async def flag(connection: AsyncConnection, name: str) -> Flag | None:
    """Return a flag as edge.yaml would have it; None where there is none of this name."""
    said = (await connection.execute(sa.select(flags.c.settings).where(flags.c.name == name))).scalar_one_or_none()
    return None if said is None else Flag.model_validate_json(said)


async def every_flag(connection: AsyncConnection) -> dict[str, Flag]:
    """Return all flags, by name."""
    found = await connection.execute(sa.select(flags.c.name, flags.c.settings).order_by(flags.c.name))
    return {name: Flag.model_validate_json(said) for name, said in found}


async def flag_lines(connection: AsyncConnection, names: Collection[str] | None = None) -> list[bytes]:
    """Return the lines of these flags, by default of all."""
    found = await every_flag(connection)
    return [flag_line(name, flag) for name, flag in found.items() if names is None or name in names]


def _rows(*, expired: bool = False) -> sa.Select[Any]:
    """A row for each key that may be used, and one for each customer without any, or who is being deleted."""
    now = time.time_ns() // 1_000_000
    usable: sa.ColumnElement[bool] = keys.c.revoked_at.is_(None) & customers.c.deleting_since.is_(None)
    if not expired:
        usable &= keys.c.expires_at.is_(None) | (keys.c.expires_at > now)
    joined = customers.outerjoin(keys, (keys.c.customer == customers.c.id) & usable)
    return sa.select(*COLUMNS).select_from(joined).order_by(customers.c.name, keys.c.sha256)


async def is_free(connection: AsyncConnection) -> bool:
    """Whether nobody is charged now: then nobody is refused for a payment."""
    return not (await connection.execute(sa.select(rollout.c.charging))).scalar_one()


def _line(name: str, rows: list[Any], *, free: bool) -> bytes:
    if rows[0].deleting_since is not None:
        return line(name, Customer(tier=rows[0].tier, paused=DELETED), ())
    own = [key_of(name, row) for row in rows if row.sha256 is not None]
    customer = Customer.model_validate_json(rows[0].settings)
    if free and customer.paused is not None and customer.paused.status == 402:
        customer = customer.model_copy(update={"paused": None})
    return line(name, customer, own)


def key_of(customer: str, row: Any) -> Key:
    """Return the key of a row as edge.yaml would have it."""
    return Key.model_validate(
        {
            "sha256": row.sha256,
            "customer": customer,
            "scopes": None if row.scopes is None else orjson.loads(row.scopes),
            "expires": None if row.expires_at is None else row.expires_at / 1000,
            "limits": () if row.limits is None else orjson.loads(row.limits),
        }
    )
