"""Price changes: scheduled new versions of plans, and the moves of subscribers to them (price_moves.py).

    scheduled ──▶ done
        └───────▶ withdrawn

A change takes effect by the clock: from `at` on its versions are sold, and each subscription moves when its period
rolls over. `done` records that the time has come.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_fields
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.billing.subscriptions.price_moves import (
    PriceMove,
    get_moving_plan,
    order_version,
    select_plans_on_sale,
)
from edgeproxy.collector.database.billing_tables import CANCELED, price_changes, price_moves, subscriptions
from edgeproxy.collector.database.billing_tables import plan_versions as version_rows
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.problems import billing_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.collector.catalog import (
    Plan,
    find_newest_versions,
    find_version_owner,
    get_plan_name,
    serialize_plan,
)

SCHEDULED, DONE, WITHDRAWN = "scheduled", "done", "withdrawn"
WITHDRAW_SECONDS = 60
"""A change can be withdrawn until this many seconds before its time. The collectors' clocks differ by less."""
DUE_MAX = 100
"""The most changes that one step finishes."""


class PriceChangeRow(NamedTuple):
    """A price change row. Times are Unix milliseconds, except `at`, a Unix second."""

    id: str
    at: int
    state: str
    why: str
    created_at: int
    created_by: str
    decided_at: int | None = None


class PreparedChange(NamedTuple):
    """A price change that can be scheduled."""

    at: int
    moves: list[PriceMove]
    """The moves, with an empty `change`."""
    plans: dict[str, Plan]
    """The versions before and after."""
    digest: str
    """The digest of everything that determines its effect: the text, the time, and the versions sold until then."""


# ---- scheduling


async def prepare_change(
    connection: AsyncConnection,
    text: str,
    written: Mapping[str, Plan],
    sold_now: Mapping[str, Plan],
    at: int,
    *,
    lock: bool = False,
) -> PreparedChange:
    """Return the change to the plans `written` in a text, while the configuration sells `sold_now`.

    With `lock`, other changes are scheduled or withdrawn only after this transaction. Raises ChangeRejectedError that
    lists each invalid version.
    """
    if lock:
        await _lock_changes(connection)
    before = await plan_versions.fetch_moves(connection)
    known = {move.after for move in before} | sold_now.keys()
    # A sold version never changes, also when it is no longer on sale.
    known |= await plan_versions.list_sold_versions(connection, written.keys() - known)
    recorded = await plan_versions.fetch_readable_plans(connection, known)
    fixed = {**recorded, **sold_now}
    sold = select_plans_on_sale(sold_now, recorded, before, at)
    faults = [
        (f"plans.{version}", f"was edited, and is sold as it was: write {get_plan_name(version)}@N anew")
        for version, plan in written.items()
        if version in fixed and serialize_plan(plan) != serialize_plan(fixed[version])
    ]
    moves: list[PriceMove] = []
    # A new version cannot be compared with one that is unreadable.
    unreadable = {get_moving_plan(version) for version in known - fixed.keys()}
    for version in sorted(written.keys() - known, key=order_version):
        current = find_newest_versions(sold, find_version_owner(version)).get(get_plan_name(version))
        if get_moving_plan(version) in unreadable:
            faults.append((f"plans.{version}", "follows a version that cannot be read, which an alert names"))
        elif (fault := _find_fault(version, current, [*before, *moves], at)) is not None:
            faults.append((f"plans.{version}", fault))
        elif current is not None and (lacking := _list_lacking(sold[current], written[version], sold)):
            what = f"has no price in {', '.join(lacking)}, in which subscribers may be charged"
            faults.append((f"plans.{version}", what))
        elif current is not None and (most := written[version].quantity_max) < sold[current].quantity_max:
            what = f"has a quantity of {most} at most, and subscribers may have {sold[current].quantity_max}"
            faults.append((f"plans.{version}", what))
        elif current is not None:
            moves.append(PriceMove("", get_moving_plan(version), current, version, at))
    if not moves and not faults:
        faults = [("plans", "changes nothing: each version is sold or scheduled already; write a new one, such as @2")]
    if faults:
        raise reject_fields([FieldFault(*fault) for fault in faults])
    plans = {move.after: written[move.after] for move in moves} | {move.before: sold[move.before] for move in moves}
    return PreparedChange(at, moves, plans, _compute_digest(text, at, moves))


def _find_fault(version: str, current: str | None, moves: Sequence[PriceMove], at: int) -> str | None:
    """Return the reason why a new version cannot follow the `current` one at a time, or None."""
    if current is None:
        return "is of a plan that is not sold: write that into the collector's plans first"
    if order_version(version) <= order_version(current):
        return f"does not come after {current}, which is sold until then: give it a higher number"
    for move in moves:
        if move.plan == get_moving_plan(version) and move.at == at:
            return f"has the same time as {move.after}: a plan changes once at a time"
        if (
            move.plan == get_moving_plan(version)
            and move.at > at
            and order_version(move.after) <= order_version(version)
        ):
            return f"does not come before {move.after}, which is scheduled for later: give it a lower number"
    return None


def _list_lacking(before: Plan, after: Plan, sold: Mapping[str, Plan]) -> list[str]:
    """Return the subscribers' currencies that the next version has no price in.

    They are the currencies of the version before, or of all plans if that version is free.
    """
    own = [before] if before.has_prices else [plan for plan in sold.values() if plan.has_prices]
    return sorted({code for plan in own for code in plan.currencies} - set(after.currencies))


def _compute_digest(text: str, at: int, moves: Sequence[PriceMove]) -> str:
    # The moves are part of the digest: between the check and the schedule another version may have been sold.
    parts = [str(at), *(f"{move.before} {move.after}" for move in moves), text]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


async def schedule_change(
    connection: AsyncConnection, caller: Caller, prepared: PreparedChange, why: str
) -> PriceChangeRow:
    """Schedule a change."""
    row = PriceChangeRow(generate_id(), prepared.at, SCHEDULED, why, now_ms(), caller.actor)
    # The versions are recorded now, so that an edit of the file until `at` cannot change what was announced.
    await plan_versions.record_plans(connection, {move.after: prepared.plans[move.after] for move in prepared.moves})
    await connection.execute(sa.insert(price_changes), [row._asdict()])
    moves = [{**move._asdict(), "change": row.id} for move in prepared.moves]
    await connection.execute(sa.insert(price_moves), moves)
    after = {"at": format_timestamp(row.at * 1000), "why": why, "moves": format_moves(prepared.moves)}
    await audit.append_entry(connection, caller, AuditEntry("price_change.schedule", row.id, None, after))
    await _alert_operators(connection, row, prepared.moves, SCHEDULED, caller.actor)
    return row


async def withdraw_change(
    connection: AsyncConnection, caller: Caller, number: str, why: str, now: float
) -> PriceChangeRow:
    """Withdraw a scheduled change. Raises ChangeRejectedError."""
    await _lock_changes(connection)
    row = await get_change(connection, number, lock=True)
    if row.state != SCHEDULED or row.at - WITHDRAW_SECONDS <= now:
        state = DONE if row.state == SCHEDULED else row.state
        raise ChangeRejectedError(
            billing_codes.PRICE_CHANGE_LATE,
            f"the price change is {state}: it can be withdrawn until {WITHDRAW_SECONDS} s before its time",
        )
    moves = await fetch_moves_of_change(connection, row.id)
    await connection.execute(sa.update(price_moves).where(price_moves.c.change == row.id).values(withdrawn=1))
    for move in moves:  # The move that was to follow a withdrawn one now follows its predecessor.
        later = (price_moves.c.before == move.after, price_moves.c.withdrawn == 0)
        await connection.execute(sa.update(price_moves).where(*later).values(before=move.before))
    withdrawn = await _decide(connection, row, WITHDRAWN)
    entry = AuditEntry("price_change.withdraw", row.id, {"state": row.state}, {"state": WITHDRAWN, "why": why})
    await audit.append_entry(connection, caller, entry)
    await _alert_operators(connection, row, moves, WITHDRAWN, caller.actor)
    return withdrawn


async def _lock_changes(connection: AsyncConnection) -> None:
    """Lock the price changes against each other, because each depends on the others in force."""
    await connection.execute(lock_rows(sa.select(version_rows.c.version).order_by(version_rows.c.version)))


async def finish_due_changes(connection: AsyncConnection, caller: Caller, now: float) -> int:
    """Mark the changes that are done by the Unix second `now`, and return their number."""
    is_due = (price_changes.c.state == SCHEDULED, price_changes.c.at <= now)
    due = sa.select(price_changes).where(*is_due).order_by(price_changes.c.id).limit(DUE_MAX)
    rows = [PriceChangeRow._make(row) for row in await connection.execute(lock_rows(due))]
    for row in rows:
        await _decide(connection, row, DONE)
        entry = AuditEntry("price_change.done", row.id, {"state": row.state}, {"state": DONE})
        await audit.append_entry(connection, caller, entry)
        await _alert_operators(connection, row, await fetch_moves_of_change(connection, row.id), DONE, row.created_by)
    return len(rows)


async def _decide(connection: AsyncConnection, row: PriceChangeRow, state: str) -> PriceChangeRow:
    decided = row._replace(state=state, decided_at=now_ms())
    statement = sa.update(price_changes).where(price_changes.c.id == row.id)
    await connection.execute(statement.values(state=state, decided_at=decided.decided_at))
    return decided


async def _alert_operators(
    connection: AsyncConnection, row: PriceChangeRow, moves: Sequence[PriceMove], state: str, actor: str
) -> None:
    at = format_timestamp(row.at * 1000)
    alert = Alert(
        key=f"price-change-{state}:{row.id}",
        kind=AlertKind.PRICE_CHANGE_DECIDED,
        title=f"The price change of {at[:10]} is {state}: {', '.join(format_moves(moves))}",
        details={"change": row.id, "state": state, "at": at, "moves": format_moves(moves), "by": actor},
        at=now_ms() / 1000,
    )
    await raise_once(connection, alert)


def format_moves(moves: Sequence[PriceMove]) -> list[str]:
    """Return moves in readable form: `standard@1 → standard@2`."""
    return [f"{move.before} → {move.after}" for move in moves]


# ---- lookups


async def get_change(connection: AsyncConnection, number: str, *, lock: bool = False) -> PriceChangeRow:
    """Return a price change by id. Raises ChangeRejectedError if it does not exist."""
    statement = sa.select(price_changes).where(price_changes.c.id == number)
    statement = lock_rows(statement) if lock else statement
    row = (await connection.execute(statement)).one_or_none() if is_id(number) else None
    if row is None:
        raise ChangeRejectedError(billing_codes.PRICE_CHANGE_NOT_FOUND, "there is no such price change")
    return PriceChangeRow._make(row)


async def list_changes(connection: AsyncConnection, before: str | None, limit: int) -> list[PriceChangeRow]:
    """Return at most `limit` price changes before an id, newest first."""
    statement = sa.select(price_changes).order_by(price_changes.c.id.desc()).limit(limit)
    rows = await connection.execute(statement if before is None else statement.where(price_changes.c.id < before))
    return [PriceChangeRow._make(row) for row in rows]


async def fetch_moves_of_change(connection: AsyncConnection, number: str) -> list[PriceMove]:
    """Return the moves of a change, withdrawn or not."""
    columns = [price_moves.c[name] for name in PriceMove._fields]
    statement = sa.select(*columns).where(price_moves.c.change == number).order_by(price_moves.c.plan)
    return [PriceMove._make(row) for row in await connection.execute(statement)]


async def fetch_versions(connection: AsyncConnection) -> list[str]:
    """Return all plan versions ever recorded."""
    return list(await connection.scalars(sa.select(version_rows.c.version)))


def build_subscribers(
    move: PriceMove, moves: Sequence[PriceMove], versions: Sequence[str]
) -> sa.Select[tuple[str, str, str]]:
    """Return the query for the subscribers that a move applies to, by subscription id, customer and name.

    `moves` are all moves of the change, `versions` all versions.
    """
    name, _, owner = move.plan.partition("+")
    plans = (name, move.plan)
    earlier = [
        version
        for version in versions
        if get_moving_plan(version) in plans and order_version(version) < order_version(move.after)
    ]
    held = sa.func.coalesce(subscriptions.c.next_version, subscriptions.c.plan_version)
    is_ending = subscriptions.c.cancel_at.is_not(None) & (subscriptions.c.cancel_at <= move.at)
    conditions = [subscriptions.c.state != CANCELED, held.in_(earlier), ~is_ending]
    if owner:
        conditions.append(customers.c.name == owner)
    else:
        own = [other.plan.partition("+")[2] for other in moves if other.plan.startswith(f"{name}+")]
        conditions.append(customers.c.name.not_in(own))
    joined = subscriptions.join(customers, customers.c.id == subscriptions.c.customer)
    return (
        sa.select(subscriptions.c.id, subscriptions.c.customer, customers.c.name).select_from(joined).where(*conditions)
    )


async def count_subscribers(connection: AsyncConnection, moves: Sequence[PriceMove]) -> dict[str, int]:
    """Return the number of subscribers for each move of a change, by its plan."""
    versions = await fetch_versions(connection)
    counts = {}
    for move in moves:
        rows = build_subscribers(move, moves, versions).subquery()
        counts[move.plan] = (await connection.execute(sa.select(sa.func.count()).select_from(rows))).scalar_one()
    return counts
