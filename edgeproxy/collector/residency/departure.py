"""The residency that a customer leaves: a preview of the move, and its steps. Each step may be repeated."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.billing.journal.journal import fetch_balance
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.edges import SERVING
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.collector.problems import operation_codes
from edgeproxy.collector.residency import credit_transfers, moves
from edgeproxy.collector.residency.credit_transfers import Transfer
from edgeproxy.collector.residency.documents import fetch_usable_keys
from edgeproxy.collector.residency.moves import Move, MoveRow
from edgeproxy.collector.residency.obstacles import find_obstacles, list_staying
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.wire.batch import UNIX_SECONDS_MAX

Step = Literal["created", "promise", "go", "book", "leave", "withdraw"]
NO_MOVE = "the customer is not on its way to another residency"


class MoveProgress(Move):
    """A move that is under way, or over, as recorded by the residency that the customer leaves."""

    counted: int
    """The units of all meters that the ledger here has for the customer. The number stops growing once all edges have
    switched over.
    """
    behind: list[str]
    """The edges that have shipped nothing here since the edges started to switch over."""
    transfers: list[Transfer]
    """The credits that have moved, or will. Book each transfer at the other residency."""
    millicredits: int
    """The credits, or the overdraft, still here. They have yet to move."""
    late: dict[str, int]
    """The usage by meter that arrived here after the move ended."""


class Departure(TypedDict):
    """The effect of a move of a customer, and the obstacles to it."""

    customer_id: str
    """The id of the customer."""
    residency: str
    """The residency that the customer would leave."""
    to: str
    """The residency that the customer would move to."""
    obstacles: list[str]
    """The obstacles to the move now, each a sentence; an empty list if there are none."""
    keys: int
    """The number of usable keys that move, as hashes."""
    contacts: int
    """The number of contacts that move."""
    millicredits: int
    """The prepaid credits that move, in millicredits; negative for an overdraft."""
    staying: list[str]
    """The data that stays and its handling, each a sentence."""
    move: MoveProgress | None
    """The current move of the customer, or its last one if it has left; null if there is none."""


def get_residency(settings: CollectorSettings) -> str:
    """Return the residency of this collector. Raises ChangeRejectedError."""
    if settings.residency is None:
        raise ChangeRejectedError(
            operation_codes.RESIDENCY_MISSING, "this collector has no residency: set residency in its file"
        )
    return settings.residency


def require_other(settings: CollectorSettings, other: str, field: str) -> str:
    """Return the residency of this collector. Raises ChangeRejectedError if it equals the other one."""
    if (residency := get_residency(settings)) == other:
        raise reject_field(field, f"is the residency of this collector, {residency}")
    return residency


async def preview(
    connection: AsyncConnection, ref: str, to: str, settings: CollectorSettings, *, end_plan: bool
) -> Departure:
    """Return the effects of a customer's move. Raises ChangeRejectedError."""
    residency = require_other(settings, to, "residency")
    row = await customers.get_row(connection, ref)
    last = await moves.find_last(connection, row.id)
    is_leaving = last is not None and last.side == "out" and last.state != "withdrawn"
    statement = sa.select(sa.func.count()).select_from(contacts).where(contacts.c.customer == row.id)
    return {
        "customer_id": row.id,
        "residency": residency,
        "to": to,
        "obstacles": await _find_obstacles(connection, row, to, settings, end_plan=end_plan),
        "keys": len(await fetch_usable_keys(connection, row.id, now_ms())),
        "contacts": int((await connection.execute(statement)).scalar_one()),
        "millicredits": await credit_transfers.fetch_left(connection, row, settings),
        "staying": await list_staying(connection, row),
        "move": await _describe_move(connection, row, last, settings) if last is not None and is_leaving else None,
    }


async def _find_obstacles(
    connection: AsyncConnection, row: CustomerRow, to: str, settings: CollectorSettings, *, end_plan: bool
) -> list[str]:
    obstacles = await find_obstacles(connection, row, end_plan=end_plan)
    last = await moves.find_last(connection, row.id)
    if last is not None and last.ended_at is None:
        if last.side == "in":
            obstacles.append(f"it has not arrived from {last.residency} yet")
        elif last.residency != to:
            obstacles.append(f"it is on its way to {last.residency}")
    if row.name in settings.customers:
        obstacles.append("it is a customer of the collector's file, too: take it out there")
    return obstacles


async def begin(
    connection: AsyncConnection, caller: Caller, ref: str, to: str, settings: CollectorSettings, *, end_plan: bool
) -> MoveProgress:
    """Begin a move, or continue the move to this residency. Raises ChangeRejectedError."""
    require_other(settings, to, "to")
    row = await customers.get_row(connection, ref, lock=True)
    last = await moves.find_last(connection, row.id)
    if last is not None and last.side == "out" and last.residency == to and last.state != "withdrawn":
        return await _describe_move(connection, row, last, settings)
    if obstacles := await _find_obstacles(connection, row, to, settings, end_plan=end_plan):
        raise ChangeRejectedError(operation_codes.MOVE_BLOCKED, "; ".join(obstacles))
    move = await moves.insert_move(connection, row.id, "out", to, peer=None)
    entry = AuditEntry("customer.move", row.name, None, {"move": move.id, "to": to, "state": move.state})
    await audit.append_entry(connection, caller, entry)
    return await _describe_move(connection, row, move, settings)


async def take_step(
    connection: AsyncConnection, caller: Caller, ref: str, step: Step, peer: str | None, settings: CollectorSettings
) -> MoveProgress:
    """Take a step of the latest move from here. A repeated step changes nothing. Raises ChangeRejectedError."""
    if step == "promise":
        await credit_transfers.promise(connection, ref, settings)
    elif step == "book":
        await credit_transfers.book_promised(connection, caller, ref)
    else:
        await _change_state(connection, caller, ref, step, peer, settings)
    row = await customers.get_row(connection, ref)
    move = await moves.find_last(connection, row.id, "out")
    assert move is not None
    return await _describe_move(connection, row, move, settings)


async def _change_state(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    step: Literal["created", "go", "leave", "withdraw"],
    peer: str | None,
    settings: CollectorSettings,
) -> None:
    row, move = await moves.lock_last(connection, ref)
    if move is None or move.side != "out":
        raise ChangeRejectedError(operation_codes.MOVE_STATE, NO_MOVE)
    if step == "created":
        if peer is None:
            raise reject_field("peer", "is missing: the id of the customer at the other residency")
        if move.peer is not None and move.peer != peer:
            raise ChangeRejectedError(operation_codes.MOVE_STATE, f"it is the customer {move.peer} at {move.residency}")
        if move.state != "begun":
            return
        after = await moves.transition(connection, move, "created", peer=peer)
    elif STATES[step] == move.state or (step == "go" and move.state == "left"):
        return
    else:
        after = await CHANGES[step](connection, caller, row, move, settings)
    entry = AuditEntry("customer.move", row.name, {"state": move.state}, {"move": move.id, "state": after.state})
    await audit.append_entry(connection, caller, entry)


async def _start_switch(
    connection: AsyncConnection, caller: Caller, row: CustomerRow, move: MoveRow, settings: CollectorSettings
) -> MoveRow:
    """Make edges switch over as soon as the other residency has the keys. From now on keys are changed only there."""
    if obstacles := await _find_obstacles(connection, row, move.residency, settings, end_plan=True):
        raise ChangeRejectedError(operation_codes.MOVE_BLOCKED, "; ".join(obstacles))
    after = await moves.transition(connection, move, "gone", gone_at=now_ms())
    change = UpdateCustomerRequest.model_validate({"moved": move.residency})
    await customers.update_customer(connection, caller, row.id, change, settings)
    return after


async def _leave(
    connection: AsyncConnection, caller: Caller, row: CustomerRow, move: MoveRow, settings: CollectorSettings
) -> MoveRow:
    """Begin the deletion of a customer whose credits have moved. Usage counted after this is late."""
    if move.promised is not None or await has_credits_to_move(connection, row, settings):
        raise ChangeRejectedError(
            operation_codes.MOVE_STATE, "not all of its credits are over: promise and book the rest"
        )
    counted = orjson.dumps(await fetch_counted(connection, row.name)).decode()
    after = await moves.transition(connection, move, "left", counted=counted)
    await customers.start_deletion(connection, caller, row.id)
    return after


async def _withdraw(
    connection: AsyncConnection, _: Caller, row: CustomerRow, move: MoveRow, settings: CollectorSettings
) -> MoveRow:
    if move.promised is not None or await credit_transfers.list_booked(connection, move.id):
        raise ChangeRejectedError(
            operation_codes.MOVE_STATE, "credits are promised to the other residency: go on with the move"
        )
    return await moves.transition(connection, move, "withdrawn")


Change = Callable[[AsyncConnection, Caller, CustomerRow, MoveRow, CollectorSettings], Awaitable[MoveRow]]
CHANGES: Final[Mapping[str, Change]] = {"go": _start_switch, "leave": _leave, "withdraw": _withdraw}
STATES: Final[Mapping[str, str]] = {"go": "gone", "leave": "left", "withdraw": "withdrawn"}
"""The state after each of these steps."""


async def has_credits_to_move(connection: AsyncConnection, row: CustomerRow, settings: CollectorSettings) -> bool:
    """Return True if a customer has credits, or an overdraft, that could move now."""
    return bool(await fetch_balance(connection, row.id)) and await _compute_due(connection, row, settings) != 0


async def _compute_due(connection: AsyncConnection, row: CustomerRow, settings: CollectorSettings) -> int:
    """Return the millicredits that could move now: all except those for usage that is not booked yet."""
    balance = await fetch_balance(connection, row.id)
    if balance < 0:
        return balance
    return max(0, balance - await credit_transfers.fetch_pending(connection, row, settings))


async def fetch_counted(connection: AsyncConnection, name: str) -> dict[str, int]:
    """Return a customer's total usage in this ledger, by meter."""
    query = LedgerQuery(name, None, 0, UNIX_SECONDS_MAX, ("meter",))
    rows = (await queries.fetch_usage(connection, query))["rows"]
    return {row["meter"]: row["value"] for row in rows if row["value"]}


async def _list_behind(connection: AsyncConnection, since: int) -> list[str]:
    """Return the edges without data in the ledger after this Unix millisecond."""
    has_shipped = edges.c.until.is_not(None) & (edges.c.until * 1000 > since)
    statement = sa.select(edges.c.edge).where(SERVING, ~has_shipped).order_by(edges.c.edge)
    return list(await connection.scalars(statement))


async def _describe_move(
    connection: AsyncConnection, row: CustomerRow, move: MoveRow, settings: CollectorSettings
) -> MoveProgress:
    counted, counted_before = await fetch_counted(connection, row.name), moves.parse_counted(move)
    late = (
        {meter: count - counted_before.get(meter, 0) for meter, count in counted.items()}
        if move.state == "left"
        else {}
    )
    return {
        **moves.to_response(move),
        "counted": sum(counted.values()),
        "behind": [] if move.gone_at is None else await _list_behind(connection, move.gone_at),
        "transfers": await credit_transfers.list_transfers(connection, move),
        "millicredits": await _compute_due(connection, row, settings) if move.state != "withdrawn" else 0,
        "late": {meter: count for meter, count in late.items() if count > 0},
    }
