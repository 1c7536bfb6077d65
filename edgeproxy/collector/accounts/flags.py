"""Flags as data: who has them, without a deploy."""

from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import Caller, Entry
from edgeproxy.collector.accounts.change import Refused, must_match
from edgeproxy.collector.accounts.ids import moment, now_ms
from edgeproxy.collector.accounts.models import FlagResponse
from edgeproxy.collector.database.schema import flags
from edgeproxy.config.directory import FREE
from edgeproxy.config.models import Flag
from edgeproxy.config.parsers import A_NAME, NAME

FLAGS_MAX = 1000
"""Flags that there may be."""


def told(row: Any) -> FlagResponse:
    """Tell a flag as the API does."""
    said = Flag.model_validate_json(row.settings)
    return {
        "name": row.name,
        "percent": said.percent,
        "tiers": list(said.tiers),
        "customers": list(said.customers),
        "updated_at": moment(row.updated_at) or "",
    }


async def find(connection: AsyncConnection, name: str) -> Any:
    """Return the row of a flag; raises Refused where there is none."""
    row = await _look(connection, name)
    if row is None:
        raise Refused(404, "there is no such flag")
    return row


async def listing(connection: AsyncConnection) -> list[FlagResponse]:
    """Tell all flags, by name."""
    return [told(row) for row in await connection.execute(sa.select(flags).order_by(flags.c.name))]


async def put(
    connection: AsyncConnection, caller: Caller, name: str, flag: Flag, *, match: frozenset[int] | None = None
) -> tuple[FlagResponse, int]:
    """Have a flag be so, whether it was there before or not; raises Refused."""
    if not NAME.fullmatch(name):
        raise Refused(422, f"a flag has a name of {A_NAME}")
    if name == FREE:
        raise Refused(409, f"{FREE} is what edges are told while nobody is charged: choose another name")
    row = await _look(connection, name, lock=True)
    if match is not None:
        must_match(0 if row is None else row.version, match)
    said = orjson.dumps(flag.model_dump(mode="json", exclude_defaults=True)).decode()
    if row is not None and row.settings == said:
        return told(row), row.version
    if row is None:
        count = (await connection.execute(sa.select(sa.func.count()).select_from(flags))).scalar_one()
        if count >= FLAGS_MAX:
            raise Refused(409, f"there are {count} flags, and {FLAGS_MAX} is as many as there may be")
    values = {"settings": said, "updated_at": now_ms(), "version": 1 if row is None else row.version + 1}
    if row is None:
        await connection.execute(sa.insert(flags), [{"name": name, **values}])
    else:
        await connection.execute(sa.update(flags).where(flags.c.name == name).values(values))
    made = await find(connection, name)
    await documents.note(connection, "flag", [name])
    before = None if row is None else orjson.loads(row.settings)
    await audit.append(connection, caller, Entry("flag.put", name, before, orjson.loads(said)))
    return told(made), made.version


async def _look(connection: AsyncConnection, name: str, *, lock: bool = False) -> Any:
    if not NAME.fullmatch(name):  # Not every database takes a NUL, even to find nothing.
        return None
    statement = sa.select(flags).where(flags.c.name == name)
    return (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
