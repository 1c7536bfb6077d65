"""Moves of customers as rows: a row at the residency that a customer leaves, and a row with its id at the new one.

    out   begun ──▶ created ──▶ gone ──▶ left         in   arriving ──▶ arrived
            │          │                                     │
            └──────────┴──▶ withdrawn                        └──▶ withdrawn

In the state `created` the customer exists at the other residency without keys, so nothing serves it there. In `gone`
its settings name the other residency, and each edge switches once the new residency has given it the keys. `left`
starts the deletion. Collectors do not know each other: `edgeproxy residency move` asks both for one step at a time.
Each step can be repeated.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Final, Literal, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.residency_tables import customer_moves
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.problems import operation_codes

Side = Literal["out", "in"]
MoveState = Literal["begun", "created", "gone", "left", "withdrawn", "arriving", "arrived"]
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "begun": frozenset({"created", "withdrawn"}),
    "created": frozenset({"gone", "withdrawn"}),
    "gone": frozenset({"left"}),
    "arriving": frozenset({"arrived", "withdrawn"}),
}
"""The possible next states of each state. Other states are final."""
columns = customer_moves.c


class MoveRow(NamedTuple):
    """A row of `customer_moves`. Times are Unix milliseconds."""

    id: str
    customer: str
    """The id of the customer here."""
    side: Side
    residency: str
    """The other residency."""
    peer: str | None
    """The customer's id there; None until it exists there."""
    state: MoveState
    created_at: int
    gone_at: int | None = None
    ended_at: int | None = None
    counted: str | None = None
    """JSON: usage by meter at the end of a move out."""
    promised: str | None = None
    """JSON: credits booked there, but not yet here."""


class Move(TypedDict):
    """A move of a customer to or from another residency."""

    id: str
    """The id of the move, at both residencies."""
    customer_id: str
    """The id of the customer here."""
    side: Side
    """`out` at the residency that the customer leaves, `in` at the other one."""
    residency: str
    """The other residency."""
    peer: str | None
    """The id of the customer at the other residency; null until it exists there."""
    state: MoveState
    """`begun`, `created`, `gone`, `left` or `withdrawn` at the residency that the customer leaves; `arriving` or
    `arrived` at the other.
    """
    created_at: str
    """The time when the move started."""
    gone_at: str | None
    """The time when edges started to switch over; null until then."""
    ended_at: str | None
    """The time when the move ended; null until then."""


class MoveList(TypedDict):
    """Moves, newest first."""

    residency: str | None
    """The residency of this collector; null if it has none."""
    moves: list[Move]
    """The moves, newest first."""


def to_response(row: MoveRow) -> Move:
    """Return a move in the API's form."""
    return {
        "id": row.id,
        "customer_id": row.customer,
        "side": row.side,
        "residency": row.residency,
        "peer": row.peer,
        "state": row.state,
        "created_at": format_timestamp(row.created_at),
        "gone_at": format_timestamp(row.gone_at),
        "ended_at": format_timestamp(row.ended_at),
    }


async def list_moves(connection: AsyncConnection, limit: int) -> list[Move]:
    """Return the newest moves."""
    statement = sa.select(customer_moves).order_by(columns.created_at.desc(), columns.id.desc()).limit(limit)
    return parse_rows(customer_moves.name, await _fetch_rows(connection, statement), to_response, attrgetter("id"))


async def find_by_id(connection: AsyncConnection, id_: str) -> MoveRow | None:
    """Return a move, or None."""
    return next(iter(await _fetch_rows(connection, sa.select(customer_moves).where(columns.id == id_))), None)


async def lock_by_id(connection: AsyncConnection, id_: str) -> tuple[CustomerRow, MoveRow] | None:
    """Return a move with its customer, both locked, or None."""
    move = await find_by_id(connection, id_)
    if move is None:
        return None
    row = await customers.get_row(connection, move.customer, lock=True)
    return row, await _lock_move(connection, id_)


async def lock_last(connection: AsyncConnection, ref: str) -> tuple[CustomerRow, MoveRow | None]:
    """Return a customer and its latest move, both locked; raises ChangeRejectedError if the customer does not exist."""
    row = await customers.get_row(connection, ref, lock=True)
    last = await find_last(connection, row.id)
    return row, None if last is None else await _lock_move(connection, last.id)


async def _lock_move(connection: AsyncConnection, id_: str) -> MoveRow:
    """Lock a move whose customer is locked, in the order of docs/design/row-locks.md."""
    (move,) = await _fetch_rows(connection, lock_rows(sa.select(customer_moves).where(columns.id == id_)))
    return move


async def find_last(connection: AsyncConnection, customer: str, side: Side | None = None) -> MoveRow | None:
    """Return the latest move of a customer (by id), or None."""
    statement = sa.select(customer_moves).where(columns.customer == customer)
    if side is not None:
        statement = statement.where(columns.side == side)
    ordered = statement.order_by(columns.created_at.desc(), columns.id.desc()).limit(1)
    return next(iter(await _fetch_rows(connection, ordered)), None)


async def has_been_here(connection: AsyncConnection, customer: str) -> bool:
    """Return True if a customer (by id) belonged to this residency before its current move."""
    is_real = (columns.side == "out") | (columns.state == "arrived")
    statement = sa.select(columns.id).where(columns.customer == customer, is_real).limit(1)
    return (await connection.execute(statement)).first() is not None


async def find_by_peer(connection: AsyncConnection, residency: str, peer: str) -> MoveRow | None:
    """Return the latest move of the customer with this id at another residency, or None."""
    is_known = (columns.residency == residency) & (columns.peer == peer)
    ordered = sa.select(customer_moves).where(is_known).order_by(columns.created_at.desc(), columns.id.desc()).limit(1)
    return next(iter(await _fetch_rows(connection, ordered)), None)


async def _fetch_rows(connection: AsyncConnection, statement: sa.Select[tuple[object, ...]]) -> list[MoveRow]:
    return [MoveRow._make(row) for row in await connection.execute(statement)]


async def insert_move(
    connection: AsyncConnection, customer: str, side: Side, residency: str, *, id_: str | None = None, peer: str | None
) -> MoveRow:
    """Insert a move that begins now, and return it."""
    state: MoveState = "begun" if side == "out" else "arriving"
    row = MoveRow(id_ or generate_id(), customer, side, residency, peer, state, now_ms())
    await connection.execute(sa.insert(customer_moves), [row._asdict()])
    return row


async def transition(connection: AsyncConnection, row: MoveRow, state: MoveState, **values: object) -> MoveRow:
    """Change a locked move's state and set these columns. Return the move. Raises ChangeRejectedError."""
    if state not in TRANSITIONS.get(row.state, ()):
        raise ChangeRejectedError(operation_codes.MOVE_STATE, f"the move is {row.state}, and cannot be {state}")
    if state not in TRANSITIONS:
        values["ended_at"] = now_ms()
    return await update_move(connection, row, state=state, **values)


async def update_move(connection: AsyncConnection, row: MoveRow, **values: object) -> MoveRow:
    """Write columns of a locked move, and return it."""
    await connection.execute(sa.update(customer_moves).where(columns.id == row.id).values(**values))
    return row._replace(**values)  # type: ignore[arg-type]


def parse_counted(row: MoveRow) -> dict[str, int]:
    """Return the usage by meter at the end of a move out."""
    return {} if row.counted is None else orjson.loads(row.counted)
