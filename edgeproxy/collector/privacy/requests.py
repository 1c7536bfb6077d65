"""Data protection requests: the person, the request, its due date and every step taken.

received ──▶ identified ──▶ done
    │            │
    └────────────┴──▶ refused, withdrawn
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple

import orjson
import sqlalchemy as sa
from pydantic import BeforeValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.fields import NOT_BLANK, Text, refuse_blank
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.database.privacy_tables import privacy_requests
from edgeproxy.collector.database.unreadable_rows import ReadPage
from edgeproxy.collector.encryption.rows import fetch_page, fetch_rows, seal_rows
from edgeproxy.collector.problems import account_codes

Kind = Literal["access", "erasure", "rectification", "restriction", "objection"]
Law = Literal["gdpr", "ccpa"]
State = Literal["received", "identified", "done", "refused", "withdrawn"]
Note = Annotated[str, Field(min_length=1, max_length=2000, pattern=NOT_BLANK), BeforeValidator(refuse_blank)]

DUE_DAYS: Final[Mapping[Law, int]] = {"gdpr": 30, "ccpa": 45}
"""Days allowed for an answer: GDPR article 12 (3), CCPA § 1798.130 (a) (2)."""
TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    "received": frozenset({"received", "identified", "refused", "withdrawn"}),
    "identified": frozenset({"identified", "done", "refused", "withdrawn"}),
    "done": frozenset(),
    "refused": frozenset(),
    "withdrawn": frozenset(),
}
"""The states that may follow each state. A request is done only after the person is identified."""
STEPS_MAX = 100
"""The most steps that a request may have before its end."""
TABLE = privacy_requests.name
NOT_FOUND = "there is no such request"


class CreatePrivacyRequest(Body):
    """A new request from a person."""

    customer: Text | None = None
    """The customer that the request is about, by name or id; by default no known customer."""
    kind: Kind
    """The kind of the request; `objection` includes an objection to a sale of data."""
    law: Law = "gdpr"
    """The law that sets the deadline: `gdpr` 30 days, `ccpa` 45 days."""
    person: Text
    """The person who asks, and how to answer."""
    note: Note
    """The way that the request arrived, and its content."""


class PrivacyRequestStep(Body):
    """A step of a request."""

    state: State
    """The state after the step; `done` is possible only after `identified`."""
    note: Note
    """The action taken: how the person was identified, the data that was sent, or the reason for a refusal."""


class PrivacyRequestStepEntry(TypedDict):
    """A step of a request."""

    at: str
    """The time of the step."""
    actor: str
    """The token or operator who did it."""
    state: State
    """The state after the step."""
    note: str
    """The action taken."""


class PrivacyRequest(TypedDict):
    """A request from a person, its first step first."""

    id: str
    """The id of the request."""
    customer: str | None
    """The id of the customer that the request is about; null: no known customer."""
    kind: Kind
    """The kind of the request."""
    law: Law
    """The law that sets the deadline."""
    person: str | None
    """The person who asks; null once the customer is erased."""
    state: State
    """`received`, `identified`, `done`, `refused` or `withdrawn`."""
    requested_at: str
    """The time when the request arrived."""
    due_at: str
    """The deadline for the answer."""
    ended_at: str | None
    """The time when it was done, refused or withdrawn; null until then."""
    is_overdue: bool
    """True if the request is open and its deadline has passed."""
    steps: list[PrivacyRequestStepEntry]
    """The steps taken; an empty list once the customer is erased."""


class PrivacyRequestList(TypedDict, total=False):
    """Requests of people, oldest first."""

    requests: list[PrivacyRequest]
    """The requests, oldest first."""
    next: str
    """The cursor of the next page; missing on the last page."""


class PrivacyRequestRow(NamedTuple):
    """A row of `privacy_requests`. Times are Unix milliseconds."""

    id: str
    customer: str | None
    kind: Kind
    law: Law
    person: str | None
    state: State
    steps: str | None
    """JSON."""
    requested_at: int
    due_at: int
    ended_at: int | None


async def list_requests(
    connection: AsyncConnection, after: str | None, limit: int, *, only_open: bool
) -> ReadPage[PrivacyRequest]:
    """Return at most `limit` requests after the id `after`, oldest first."""
    columns = privacy_requests.c
    statement = sa.select(privacy_requests).order_by(columns.id)
    if after is not None:
        statement = statement.where(columns.id > after)
    if only_open:
        statement = statement.where(columns.ended_at.is_(None))
    return await fetch_page(connection, TABLE, statement, limit, lambda row: to_response(PrivacyRequestRow(**row)))


async def create_request(connection: AsyncConnection, caller: Caller, new: CreatePrivacyRequest) -> PrivacyRequest:
    """Record a request. Raises ChangeRejectedError if the customer does not exist."""
    customer = None if new.customer is None else await customers.get_row(connection, new.customer)
    now = now_ms()
    row = PrivacyRequestRow(
        id=generate_id(),
        customer=None if customer is None else customer.id,
        kind=new.kind,
        law=new.law,
        person=new.person,
        state="received",
        steps=dump_steps([build_step(caller, now, "received", new.note)]),
        requested_at=now,
        due_at=now + DUE_DAYS[new.law] * DAY_MS,
        ended_at=None,
    )
    await connection.execute(sa.insert(privacy_requests), await seal_rows(connection, TABLE, [row._asdict()]))
    after = {"kind": row.kind, "law": row.law, "customer": None if customer is None else customer.name}
    await audit.append_entry(connection, caller, AuditEntry("privacy_request.create", row.id, None, after))
    return to_response(row)


async def add_step(connection: AsyncConnection, caller: Caller, id_: str, step: PrivacyRequestStep) -> PrivacyRequest:
    """Add a step to a request. Raises ChangeRejectedError."""
    row = await _get_row(connection, id_)
    if step.state not in TRANSITIONS[row.state]:
        raise ChangeRejectedError(
            account_codes.PRIVACY_REQUEST_STATE, f"the request is {row.state}, and cannot be {step.state}"
        )
    steps, now = _load_steps(row), now_ms()
    if len(steps) >= STEPS_MAX and TRANSITIONS[step.state]:  # A request can always end.
        raise ChangeRejectedError(
            account_codes.PRIVACY_STEPS_FULL, f"it has {STEPS_MAX} steps, which is as many as there may be"
        )
    ended = None if TRANSITIONS[step.state] else now
    steps.append(build_step(caller, now, step.state, step.note))
    after = row._replace(state=step.state, steps=dump_steps(steps), ended_at=ended)
    own = privacy_requests.c.id == row.id
    (stored,) = await seal_rows(connection, TABLE, [after._asdict()])
    await connection.execute(sa.update(privacy_requests).where(own).values(stored))
    entry = AuditEntry("privacy_request.step", row.id, {"state": row.state}, {"state": after.state})
    await audit.append_entry(connection, caller, entry)
    return to_response(after)


async def _get_row(connection: AsyncConnection, id_: str) -> PrivacyRequestRow:
    rows = []
    if is_id(id_):
        statement = sa.select(privacy_requests).where(privacy_requests.c.id == id_)
        rows = await fetch_rows(connection, TABLE, statement.with_for_update())
    if not rows:
        raise ChangeRejectedError(account_codes.PRIVACY_REQUEST_NOT_FOUND, NOT_FOUND)
    return PrivacyRequestRow(**rows[0])  # type: ignore[arg-type]


def build_step(caller: Caller, at: int, state: State, note: str) -> PrivacyRequestStepEntry:
    """Return a step by `caller` at this Unix millisecond."""
    return {"at": format_timestamp(at), "actor": caller.actor, "state": state, "note": note}


def dump_steps(steps: Sequence[PrivacyRequestStepEntry]) -> str:
    """Return steps as the JSON text of a row."""
    return orjson.dumps(steps).decode()


def _load_steps(row: PrivacyRequestRow) -> list[PrivacyRequestStepEntry]:
    steps: list[PrivacyRequestStepEntry] = [] if row.steps is None else orjson.loads(row.steps)
    return steps


def to_response(row: PrivacyRequestRow) -> PrivacyRequest:
    """Return a request in the form of the API."""
    return {
        "id": row.id,
        "customer": row.customer,
        "kind": row.kind,
        "law": row.law,
        "person": row.person,
        "state": row.state,
        "requested_at": format_timestamp(row.requested_at),
        "due_at": format_timestamp(row.due_at),
        "ended_at": format_timestamp(row.ended_at),
        "is_overdue": row.ended_at is None and now_ms() > row.due_at,
        "steps": _load_steps(row),
    }
