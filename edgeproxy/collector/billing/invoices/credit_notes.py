"""Credit notes as rows: a part of an invoice is taken back.

    requested ──▶ made
        └───────▶ refused

A person requests one. It stays `requested` until Stripe has made it or refuses it for good.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.billing_tables import credit_notes

REQUESTED, MADE, REFUSED = "requested", "made", "refused"
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    REQUESTED: frozenset({REQUESTED, MADE, REFUSED}),  # It stays where a try has failed.
    MADE: frozenset(),
    REFUSED: frozenset(),
}
"""The states that each state may become."""


class CreditNoteStateError(Exception):
    """A credit note cannot go from its state to the one that was given."""


class CreditNote(NamedTuple):
    """A credit note that is to be made."""

    id: str
    invoice: str
    amount: int
    """The amount, in cents."""
    why: str
    state: str
    tries: int
    """The number of used-up Idempotency-Keys."""
    failures: int
    """The number of calls that failed."""


FIELDS = [credit_notes.c[name] for name in CreditNote._fields]


async def list_due(connection: AsyncConnection, now: float, limit: int) -> list[CreditNote]:
    """Return the requested credit notes whose next try is due at this Unix second, oldest first."""
    columns = credit_notes.c
    statement = sa.select(*FIELDS).where(columns.state == REQUESTED, columns.try_at <= now)
    return [CreditNote(*row) for row in await connection.execute(statement.order_by(columns.id).limit(limit))]


async def transition(connection: AsyncConnection, note: CreditNote, state: str, **values: object) -> None:
    """Bring a credit note into a state, with these columns. Raises CreditNoteStateError where TRANSITIONS has no such
    step."""
    if state not in TRANSITIONS[note.state]:
        raise CreditNoteStateError(f"a credit note cannot go from {note.state} to {state}")
    columns = credit_notes.c
    statement = sa.update(credit_notes).where(columns.id == note.id, columns.state == note.state)
    await connection.execute(statement.values(state=state, **values))
