"""The states of an outbox row, and what each answer of Stripe's means for it. Pure.

All that decides on the state of a row is in this file; `exporter.py` does what is decided, and `build_transition` of
`outbox_rows.py` is the only way from one state to another. A row says that a customer
used so much of a meter in a slice of time. Stripe counts an event once for each identifier within a day, so a row that
may have been counted is sent again under the same identifier, or found in Stripe's sums, and never guessed.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

MINUTE = 60
TRIED_SECONDS = 23 * 3600
"""Seconds after its first attempt in which a row is sent again: identifiers are unique for at least 24 hours."""
ABSENT_SECONDS = 3600
"""Seconds after that in which its minute must show up in Stripe's sums, else it was not counted."""
PAUSE_SECONDS_MAX = 300.0
"""Seconds that a row rests at most between two attempts."""


class RowState(StrEnum):
    """The state of a row."""

    READY = "ready"
    """Fixed, and not under way."""
    SENDING = "sending"
    """Written before the call; after a crash it counts as unknown."""
    ACCEPTED = "accepted"
    """Stripe took it; whether it is counted is not known yet."""
    UNKNOWN = "unknown"
    """Stripe may have it, or not."""
    REJECTED = "rejected"
    """Certainly not counted; the next revision has it, once the cause is mended."""
    CONFIRMED = "confirmed"
    """Counted: a sum of Stripe's equals ours."""
    LATE = "late"
    """Billed on the next invoice, as an item."""
    WAIVED = "waived"
    """Never charged."""
    VOID = "void"
    """Replaced by another revision, which has its value."""


TRANSITIONS: Mapping[RowState, frozenset[RowState]] = {
    RowState.READY: frozenset({RowState.SENDING, RowState.LATE, RowState.WAIVED}),
    RowState.SENDING: frozenset(
        {RowState.ACCEPTED, RowState.UNKNOWN, RowState.REJECTED, RowState.READY, RowState.LATE}
    ),
    RowState.ACCEPTED: frozenset({RowState.CONFIRMED, RowState.REJECTED}),
    RowState.UNKNOWN: frozenset({RowState.SENDING, RowState.CONFIRMED, RowState.REJECTED, RowState.VOID}),
    RowState.REJECTED: frozenset({RowState.VOID}),
    RowState.CONFIRMED: frozenset(),
    RowState.LATE: frozenset(),
    RowState.WAIVED: frozenset(),
    RowState.VOID: frozenset(),
}
"""The states that each state may become."""
RECOVERY_TRANSITIONS: Mapping[RowState, frozenset[RowState]] = {
    RowState.READY: frozenset({RowState.CONFIRMED, RowState.VOID}),
    RowState.SENDING: frozenset({RowState.CONFIRMED, RowState.VOID}),
    RowState.ACCEPTED: frozenset(),
    RowState.UNKNOWN: frozenset({RowState.CONFIRMED, RowState.VOID}),
    RowState.REJECTED: frozenset({RowState.CONFIRMED}),
    RowState.CONFIRMED: frozenset(),
    RowState.LATE: frozenset({RowState.CONFIRMED}),
    RowState.WAIVED: frozenset({RowState.CONFIRMED}),
    RowState.VOID: frozenset({RowState.CONFIRMED}),
}
"""The states that each state may become after a database was restored: Stripe's sums overrule what it says of rows that
are not known to be counted."""
SETTLED = frozenset({RowState.CONFIRMED, RowState.LATE, RowState.WAIVED, RowState.VOID})
"""States that are final."""


class RowStateError(Exception):
    """A row cannot go from its state to the one that was given."""


class Reply(StrEnum):
    """The result of sending a meter event."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """Stripe has an event of this identifier, and we have an earlier attempt on record."""
    FOREIGN = "foreign"
    """Stripe has an event of this identifier, and we have never sent it."""
    OUT_OF_TIME = "out_of_time"
    """Dated more than 35 days back, or more than 5 minutes ahead."""
    REFUSED = "refused"
    DENIED = "denied"
    """The key is not valid, or may not do this."""
    BUSY = "busy"
    """Another call with this key, or for this customer and meter, is under way."""
    LIMITED = "limited"
    """More calls than are allowed."""
    LOCKED = "locked"
    """Stripe could not have its lock: `lock_timeout`."""
    FAILED = "failed"
    """Stripe failed; the same key would only replay that."""
    LOST = "lost"
    """No answer came."""


class Meaning(NamedTuple):
    """The consequences of a reply: the row's next state, its pause, and the exporter's reaction."""

    state: RowState
    pause: Literal["none", "short", "long"] = "none"
    """The rest of the row: none; 1 to 5 s; longer after each attempt."""
    new_key: bool = False
    """Whether the next attempt has another Idempotency-Key."""
    halves: bool = False
    """Whether fewer are sent from now on."""
    stops: bool = False
    """Whether the exporter stops until a person has looked."""
    alert: str | None = None
    """The title of the alert; None raises none."""


MEANINGS: Mapping[Reply, Meaning] = {
    Reply.TAKEN: Meaning(RowState.ACCEPTED),
    Reply.DUPLICATE: Meaning(RowState.ACCEPTED),
    Reply.FOREIGN: Meaning(
        RowState.REJECTED,
        alert="Stripe has an event that this database never sent: it was restored, or a second installation exports",
    ),
    Reply.OUT_OF_TIME: Meaning(
        RowState.LATE, alert="Stripe finds the time of an event out of its bounds: compare this machine's clock"
    ),
    Reply.REFUSED: Meaning(RowState.REJECTED, alert="Stripe refuses an event"),
    Reply.DENIED: Meaning(
        RowState.READY,
        stops=True,
        alert="Stripe does not accept the key: exports have stopped. Put a valid key in place and restart",
    ),
    Reply.BUSY: Meaning(RowState.READY, pause="short"),
    Reply.LIMITED: Meaning(RowState.READY, pause="long", halves=True),
    Reply.LOCKED: Meaning(RowState.READY, pause="long"),
    Reply.FAILED: Meaning(RowState.UNKNOWN, pause="long", new_key=True),
    Reply.LOST: Meaning(RowState.UNKNOWN, pause="long"),
}
"""The meaning of each reply to a row of which no earlier attempt is in doubt."""

DUPLICATE_WORDS = "already exists with identifier"
"""The words of Stripe's message about an identifier that it has; there is no code for it."""
DUPLICATE_CODE = "duplicate_meter_event"
TIME_CODES = frozenset({"timestamp_too_far_in_past", "timestamp_in_future"})
TIME_WORD = "timestamp"


class Answer(NamedTuple):
    """An answer of Stripe's; `status` is None where none came."""

    status: int | None
    message: str = ""
    code: str | None = None
    reason: str | None = None
    """`Stripe-Rate-Limited-Reason`."""


def classify_answer(answer: Answer, *, attempted: bool) -> Reply:
    """Return the reply that an answer is; `attempted` says whether the row was sent before this attempt."""
    status, message, code, reason = answer
    if status is None:
        return Reply.LOST
    if 200 <= status < 300:
        return Reply.TAKEN
    if status == 400 and (DUPLICATE_WORDS in message or code == DUPLICATE_CODE):
        return Reply.DUPLICATE if attempted else Reply.FOREIGN
    if status == 400 and (code in TIME_CODES or TIME_WORD in message.lower()):
        return Reply.OUT_OF_TIME
    if status == 429:
        return Reply.LIMITED if reason else Reply.LOCKED
    return STATUSES.get(status, Reply.REFUSED if 400 <= status < 500 else Reply.FAILED)


STATUSES: Mapping[int, Reply] = {401: Reply.DENIED, 403: Reply.DENIED, 408: Reply.LOST, 409: Reply.BUSY}
"""The replies of statuses that need no message; others from 400 on refuse, and all else is a failure of Stripe's."""


def interpret_reply(reply: Reply, *, in_doubt: bool) -> Meaning:
    """Return the meaning of a reply; `in_doubt` says whether an earlier attempt had no certain answer.

    An attempt without effect says nothing about an earlier one: such a row stays unknown.
    """
    meaning = MEANINGS[reply]
    if in_doubt and meaning.state is not RowState.ACCEPTED:
        return meaning._replace(state=RowState.UNKNOWN, pause="long" if meaning.pause == "none" else meaning.pause)
    return meaning


def compute_rest(meaning: Meaning, attempts: int, random_share: float) -> float:
    """Return the seconds until the row may be sent again, after so many attempts; `random_share` is from 0 to 1, so
    that rests differ."""
    if meaning.pause == "none":
        return 0.0
    if meaning.pause == "short":
        return 1.0 + 4.0 * random_share
    return float(min(2 ** min(attempts, 16), PAUSE_SECONDS_MAX) * (0.5 + 0.5 * random_share))


class Doubt(StrEnum):
    """A decision on a row that may have been counted, or not."""

    SEND = "send"
    """Send it again, under the same identifier."""
    WAIT = "wait"
    """Wait for the sum of its minute."""
    CONFIRM = "confirm"
    VOID = "void"
    """The row was not counted: the next revision has its value."""


def resolve_doubt(age: float, *, is_counted: bool | None) -> Doubt:
    """Decide on an unknown row whose first attempt was `age` seconds ago.

    `is_counted`: whether Stripe's sum of its minute has it; None where it was not read lately.
    """
    if is_counted:
        return Doubt.CONFIRM
    if age < TRIED_SECONDS:
        return Doubt.SEND
    if is_counted is None or age < TRIED_SECONDS + ABSENT_SECONDS:
        return Doubt.WAIT
    return Doubt.VOID


def build_identifier(account: str, customer: str, meter: str, start: int, revision: int, segment: int) -> str:
    """Return the identifier of a row at Stripe, which never changes: slice and segment are known by their
    first second."""
    key = json.dumps([account, customer, meter, start, revision, segment], separators=(",", ":"))
    return f"ep_{hashlib.sha256(key.encode()).hexdigest()[:40]}"


def compute_event_time(start: int, end: int, revision: int) -> int | None:
    """Return the time of a revision's event: each in a minute of its own, so that the sum of one minute is that of one
    event. None where the slice has no more minutes: it goes on the next invoice."""
    at = end - revision * MINUTE - 1
    return at if at >= start else None
