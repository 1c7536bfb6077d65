"""Flags as data: the customers that have a flag can change without a deployment."""

from operator import attrgetter

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, require_version
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.models import FlagResponse
from edgeproxy.collector.accounts.rows import FlagRow
from edgeproxy.collector.database.schema import flags
from edgeproxy.collector.database.unreadable_rows import parse_rows, reading_row
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.customers import Flag
from edgeproxy.config.directory import FREE
from edgeproxy.config.parsers import A_NAME, NAME

FLAGS_MAX = 1000
"""The most flags."""


def to_response(row: FlagRow) -> FlagResponse:
    """Return a flag in the form of the API. Raises UnreadableRowError."""
    with reading_row(flags.name, row.name):
        flag = Flag.model_validate_json(row.settings)
    return {
        "name": row.name,
        "percent": flag.percent,
        "tiers": list(flag.tiers),
        "customers": list(flag.customers),
        "updated_at": format_timestamp(row.updated_at),
    }


async def get_row(connection: AsyncConnection, name: str) -> FlagRow:
    """Return the row of a flag. Raises ChangeRejectedError if it does not exist."""
    row = await _find_row(connection, name)
    if row is None:
        raise ChangeRejectedError(account_codes.FLAG_NOT_FOUND, "there is no such flag")
    return row


async def list_flags(connection: AsyncConnection) -> list[FlagResponse]:
    """Return all flags by name."""
    rows = await connection.execute(sa.select(flags).order_by(flags.c.name))
    return parse_rows(flags.name, rows, lambda row: to_response(FlagRow(*row)), attrgetter("name"))


async def put_flag(
    connection: AsyncConnection, caller: Caller, name: str, flag: Flag, *, match: frozenset[int] | None = None
) -> tuple[FlagResponse, int]:
    """Create or replace a flag. Return it with its version. Raises ChangeRejectedError."""
    if not NAME.fullmatch(name):
        raise ChangeRejectedError(account_codes.FLAG_INVALID, f"a flag has a name of {A_NAME}")
    if name == FREE:
        raise ChangeRejectedError(
            account_codes.FLAG_RESERVED, f"{FREE} is what edges are told while nobody is charged: choose another name"
        )
    row = await _find_row(connection, name, lock=True)
    if match is not None:
        require_version(0 if row is None else row.version, match)
    settings = orjson.dumps(flag.model_dump(mode="json", exclude_defaults=True)).decode()
    if row is not None and row.settings == settings:
        return to_response(row), row.version
    if row is None:
        count = (await connection.execute(sa.select(sa.func.count()).select_from(flags))).scalar_one()
        if count >= FLAGS_MAX:
            raise ChangeRejectedError(
                account_codes.FLAGS_FULL, f"there are {count} flags, and {FLAGS_MAX} is as many as there may be"
            )
    updated = FlagRow(name, settings, now_ms(), 1 if row is None else row.version + 1)
    if row is None:
        await connection.execute(sa.insert(flags), [updated._asdict()])
    else:
        await connection.execute(sa.update(flags).where(flags.c.name == name).values(updated._asdict()))
    await documents.enqueue_changes(connection, "flag", [name])
    before = None if row is None else orjson.loads(row.settings)
    await audit.append_entry(connection, caller, AuditEntry("flag.put", name, before, orjson.loads(settings)))
    return to_response(updated), updated.version


async def _find_row(connection: AsyncConnection, name: str, *, lock: bool = False) -> FlagRow | None:
    if not NAME.fullmatch(name):  # Some databases reject a NUL even in a query.
        return None
    statement = sa.select(flags).where(flags.c.name == name)
    row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    return None if row is None else FlagRow(*row)
