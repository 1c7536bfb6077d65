"""The states of an outbox row, and the effect of each answer by Stripe. Pure.

This module makes all decisions on the state of a row; `exporter.py` carries them out, and `build_transition` in
`outbox_rows.py` is the only way to change a state. A row reports the quantity of a meter that a customer used in a time
slice. Stripe counts an event once per identifier within a day. So a row that may have been counted is sent again under
the same identifier, or looked up in Stripe's sums, but never guessed.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

MINUTE = 60
TRIED_SECONDS = 23 * 3600
"""For how many seconds after its first attempt a row is sent again. Identifiers are unique for at least 24 hours."""
ABSENT_SECONDS = 3600
"""For how many further seconds Stripe's sum may lack the row's minute. After that, the row counts as not counted."""
PAUSE_SECONDS_MAX = 300.0
"""The longest pause in seconds between two attempts of a row."""


class RowState(StrEnum):
    """The state of a row."""

    READY = "ready"
    """The value is fixed, and no attempt is under way."""
    SENDING = "sending"
    """Written before the call. After a crash the row counts as unknown."""
    ACCEPTED = "accepted"
    """Stripe accepted it; it is unknown whether Stripe counted it."""
    UNKNOWN = "unknown"
    """Stripe may have it or not."""
    REJECTED = "rejected"
    """Certainly not counted. The next revision contains its value once the cause is fixed."""
    CONFIRMED = "confirmed"
    """Counted: a sum of Stripe equals ours."""
    LATE = "late"
    """Billed on the next invoice as an item."""
    WAIVED = "waived"
    """Never charged."""
    VOID = "void"
    """Replaced by another revision that contains its value."""


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
"""The states that may follow each state."""
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
"""The states that may follow each state after the database was restored.

Stripe's sums then overrule the restored state of rows that are not known to be counted.
"""
SETTLED = frozenset({RowState.CONFIRMED, RowState.LATE, RowState.WAIVED, RowState.VOID})
"""States that are final."""


class RowStateError(Exception):
    """The row cannot make this transition from its state."""


class Reply(StrEnum):
    """The result of sending a meter event."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """Stripe has an event with this identifier, and we recorded an earlier attempt."""
    FOREIGN = "foreign"
    """Stripe has an event with this identifier, and we never sent it."""
    OUT_OF_TIME = "out_of_time"
    """The event is dated more than 35 days back, or more than 5 minutes ahead."""
    REFUSED = "refused"
    DENIED = "denied"
    """The API key is invalid, or lacks the permission."""
    BUSY = "busy"
    """Another call with this Idempotency-Key, or for this customer and meter, is under way."""
    LIMITED = "limited"
    """The rate limit is exceeded."""
    LOCKED = "locked"
    """Stripe could not get its lock: `lock_timeout`."""
    FAILED = "failed"
    """Stripe failed. The same Idempotency-Key would only replay the failure."""
    LOST = "lost"
    """No answer arrived."""


class Meaning(NamedTuple):
    """The consequences of a reply: the row's next state, its pause, and the exporter's reaction."""

    state: RowState
    pause: Literal["none", "short", "long"] = "none"
    """The pause of the row: none; 1 to 5 s; or longer after each attempt."""
    new_key: bool = False
    """The next attempt uses another Idempotency-Key."""
    halves: bool = False
    """The exporter sends fewer events from now on."""
    stops: bool = False
    """The exporter stops until a person has looked at the problem."""
    alert: str | None = None
    """The title of the alert, or None for no alert."""


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
"""The meaning of each reply to a row without a doubtful earlier attempt."""

DUPLICATE_WORDS = "already exists with identifier"
"""Text in Stripe's message about an identifier that it already has. There is no code for it."""
DUPLICATE_CODE = "duplicate_meter_event"
TIME_CODES = frozenset({"timestamp_too_far_in_past", "timestamp_in_future"})
TIME_WORD = "timestamp"


class Answer(NamedTuple):
    """An answer by Stripe. `status` is None if none arrived."""

    status: int | None
    message: str = ""
    code: str | None = None
    reason: str | None = None
    """The value of `Stripe-Rate-Limited-Reason`."""


def classify_answer(answer: Answer, *, attempted: bool) -> Reply:
    """Classify an answer. `attempted` means that the row was sent before this attempt."""
    status, message, code, reason = answer
    if status is None:
        return Reply.LOST
    if 200 <= status < 300:
        return Reply.TAKEN
    if status == 400 and (DUPLICATE_WORDS in message or code == DUPLICATE_CODE):
        # An event that this database has not sent was sent by a copy of it, or before a restore.
        return Reply.DUPLICATE if attempted else Reply.FOREIGN
    if status == 400 and (code in TIME_CODES or TIME_WORD in message.lower()):
        return Reply.OUT_OF_TIME
    if status == 429:
        # Stripe gives a reason only for its rate limits. A 429 without one is a lock, and fewer calls would not help.
        return Reply.LIMITED if reason else Reply.LOCKED
    return STATUSES.get(status, Reply.REFUSED if 400 <= status < 500 else Reply.FAILED)


STATUSES: Mapping[int, Reply] = {401: Reply.DENIED, 403: Reply.DENIED, 408: Reply.LOST, 409: Reply.BUSY}
"""The replies of statuses that need no message.

Other statuses from 400 to 499 are refusals, and all else is a failure of Stripe.
"""


def interpret_reply(reply: Reply, *, in_doubt: bool) -> Meaning:
    """Return the meaning of a reply. `in_doubt` means that an earlier attempt had no certain answer.

    An attempt without effect proves nothing about an earlier one, so such a row stays unknown.
    """
    meaning = MEANINGS[reply]
    if in_doubt and meaning.state is not RowState.ACCEPTED:
        return meaning._replace(state=RowState.UNKNOWN, pause="long" if meaning.pause == "none" else meaning.pause)
    return meaning


def compute_rest(meaning: Meaning, attempts: int, random_share: float) -> float:
    """Return the seconds until the row may be sent again after this number of attempts.

    `random_share` is from 0 to 1 and makes pauses differ.
    """
    if meaning.pause == "none":
        return 0.0
    if meaning.pause == "short":
        return 1.0 + 4.0 * random_share
    return float(min(2 ** min(attempts, 16), PAUSE_SECONDS_MAX) * (0.5 + 0.5 * random_share))


class Doubt(StrEnum):
    """A decision on a row that Stripe may have counted or not."""

    SEND = "send"
    """Send it again under the same identifier."""
    WAIT = "wait"
    """Wait for the sum of its minute."""
    CONFIRM = "confirm"
    VOID = "void"
    """The row was not counted. The next revision contains its value."""


def resolve_doubt(age: float, *, is_counted: bool | None) -> Doubt:
    """Decide on an unknown row whose first attempt was `age` seconds ago.

    `is_counted` tells whether Stripe's sum of its minute includes it, or is None if the sum was not read lately.
    """
    if is_counted:
        return Doubt.CONFIRM
    if age < TRIED_SECONDS:
        return Doubt.SEND
    if is_counted is None or age < TRIED_SECONDS + ABSENT_SECONDS:
        return Doubt.WAIT
    return Doubt.VOID


def build_identifier(account: str, customer: str, meter: str, start: int, revision: int, segment: int) -> str:
    """Return the identifier of a row at Stripe, which never changes.

    The first seconds of slice and segment identify them.
    """
    key = json.dumps([account, customer, meter, start, revision, segment], separators=(",", ":"))
    return f"ep_{hashlib.sha256(key.encode()).hexdigest()[:40]}"


def compute_event_time(start: int, end: int, revision: int) -> int | None:
    """Return the time of a revision's event, or None if the slice has no more minutes.

    Each revision has a minute of its own, so the sum of a minute is the value of one event. Without a free minute, the
    value goes on the next invoice.
    """
    at = end - revision * MINUTE - 1
    return at if at >= start else None
