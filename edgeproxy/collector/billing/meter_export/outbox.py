"""What becomes of usage on its way to Stripe: the states of a row of the outbox, and what each answer means. Pure.

All that decides on the state of a row is in this file; `exporter.py` does what is decided. A row says that a customer
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
VALUE_DIGITS_MAX = 15
"""Digits of a value that Stripe takes."""
PAUSE_SECONDS_MAX = 300.0
"""Seconds that a row rests at most between two attempts."""


class State(StrEnum):
    """What a row is."""

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
    """On the next invoice, as an item."""
    WAIVED = "waived"
    """Never charged."""
    VOID = "void"
    """Replaced by another revision, which has its value."""


LEAVES: Mapping[State, frozenset[State]] = {
    State.READY: frozenset({State.SENDING, State.LATE, State.WAIVED}),
    State.SENDING: frozenset({State.ACCEPTED, State.UNKNOWN, State.REJECTED, State.READY, State.LATE}),
    State.ACCEPTED: frozenset({State.CONFIRMED, State.REJECTED}),
    State.UNKNOWN: frozenset({State.SENDING, State.CONFIRMED, State.REJECTED, State.VOID}),
    State.REJECTED: frozenset({State.VOID}),
    State.CONFIRMED: frozenset(),
    State.LATE: frozenset(),
    State.WAIVED: frozenset(),
    State.VOID: frozenset(),
}
"""What each state may become."""
SETTLED = frozenset({State.CONFIRMED, State.LATE, State.WAIVED, State.VOID})
"""States that are ends."""


class Reply(StrEnum):
    """What came of sending a meter event."""

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
    """Another call of this key, or of this customer and meter, is under way."""
    LIMITED = "limited"
    """More calls than are allowed."""
    LOCKED = "locked"
    """Stripe could not have its lock: `lock_timeout`."""
    FAILED = "failed"
    """Stripe failed; the same key would only replay that."""
    LOST = "lost"
    """No answer came."""


class Meaning(NamedTuple):
    """What a reply says of the row, and what is to be done."""

    state: State
    pause: Literal["none", "short", "long"] = "none"
    """How long the row rests: not at all; 1 to 5 s; longer after each attempt."""
    new_key: bool = False
    """Whether the next attempt has another Idempotency-Key."""
    halves: bool = False
    """Whether fewer are sent from now on."""
    stops: bool = False
    """Whether the exporter stops until somebody has looked."""
    alert: str | None = None
    """What people are told."""


MEANINGS: Mapping[Reply, Meaning] = {
    Reply.TAKEN: Meaning(State.ACCEPTED),
    Reply.DUPLICATE: Meaning(State.ACCEPTED),
    Reply.FOREIGN: Meaning(
        State.REJECTED,
        alert="Stripe has an event that this database never sent: it was restored, or a second installation exports",
    ),
    Reply.OUT_OF_TIME: Meaning(
        State.LATE, alert="Stripe finds the time of an event out of its bounds: compare this machine's clock"
    ),
    Reply.REFUSED: Meaning(State.REJECTED, alert="Stripe refuses an event"),
    Reply.DENIED: Meaning(
        State.READY,
        stops=True,
        alert="Stripe does not accept the key: exports have stopped. Put a valid key in place and restart",
    ),
    Reply.BUSY: Meaning(State.READY, pause="short"),
    Reply.LIMITED: Meaning(State.READY, pause="long", halves=True),
    Reply.LOCKED: Meaning(State.READY, pause="long"),
    Reply.FAILED: Meaning(State.UNKNOWN, pause="long", new_key=True),
    Reply.LOST: Meaning(State.UNKNOWN, pause="long"),
}
"""What each reply means to a row of which no earlier attempt is in doubt."""

DUPLICATE_WORDS = "already exists with identifier"
"""What Stripe's message says of an identifier that it has; there is no code for it."""
DUPLICATE_CODE = "duplicate_meter_event"
TIME_CODES = frozenset({"timestamp_too_far_in_past", "timestamp_in_future"})
TIME_WORDS = ("timestamp",)


class Answer(NamedTuple):
    """An answer of Stripe's, as far as it matters; `status` is None where none came."""

    status: int | None
    message: str = ""
    code: str | None = None
    reason: str | None = None
    """`Stripe-Rate-Limited-Reason`."""


def reply_of(answer: Answer, *, attempted: bool) -> Reply:
    """Say what an answer is; `attempted`: whether the row was sent before this attempt."""
    status, message, code, reason = answer
    if status is None:
        return Reply.LOST
    if 200 <= status < 300:
        return Reply.TAKEN
    if status == 400 and (DUPLICATE_WORDS in message or code == DUPLICATE_CODE):
        return Reply.DUPLICATE if attempted else Reply.FOREIGN
    if status == 400 and (code in TIME_CODES or any(word in message.lower() for word in TIME_WORDS)):
        return Reply.OUT_OF_TIME
    if status == 429:
        return Reply.LIMITED if reason else Reply.LOCKED
    return STATUSES.get(status, Reply.REFUSED if 400 <= status < 500 else Reply.FAILED)


STATUSES: Mapping[int, Reply] = {
    401: Reply.DENIED,
    403: Reply.DENIED,
    408: Reply.LOST,
    409: Reply.BUSY,
}
"""What the statuses say that say it alone; others from 400 on refuse, and all else is a failure of Stripe's."""


def meaning_of(reply: Reply, *, in_doubt: bool) -> Meaning:
    """Say what a reply means; `in_doubt`: whether an earlier attempt had no certain answer.

    That this attempt did nothing says nothing of an earlier one: such a row stays unknown.
    """
    meaning = MEANINGS[reply]
    if in_doubt and meaning.state is not State.ACCEPTED:
        return meaning._replace(state=State.UNKNOWN, pause="long" if meaning.pause == "none" else meaning.pause)
    return meaning


def rest(meaning: Meaning, attempts: int, luck: float) -> float:
    """Seconds until the row may be sent again, after so many attempts; `luck` is from 0 to 1, as rests must differ."""
    if meaning.pause == "none":
        return 0.0
    if meaning.pause == "short":
        return 1.0 + 4.0 * luck
    return float(min(2 ** min(attempts, 16), PAUSE_SECONDS_MAX) * (0.5 + 0.5 * luck))


class Doubt(StrEnum):
    """What is done with a row that may have been counted, or not."""

    SEND = "send"
    """Send it again, under the same identifier."""
    WAIT = "wait"
    """Wait for the sum of its minute."""
    CONFIRM = "confirm"
    VOID = "void"
    """It was not counted: the next revision has its value."""


def resolve(age: float, *, is_counted: bool | None) -> Doubt:
    """Decide on an unknown row whose first attempt was `age` seconds ago.

    `is_counted`: whether Stripe's sum of its minute has it; None where nobody has read that lately.
    """
    if is_counted:
        return Doubt.CONFIRM
    if age < TRIED_SECONDS:
        return Doubt.SEND
    if is_counted is None or age < TRIED_SECONDS + ABSENT_SECONDS:
        return Doubt.WAIT
    return Doubt.VOID


def identifier(account: str, customer: str, meter: str, start: int, revision: int, segment: int) -> str:
    """Name a row to Stripe, the same whenever it is made: slice and segment are known by their first second."""
    said = json.dumps([account, customer, meter, start, revision, segment], separators=(",", ":"))
    return f"ep_{hashlib.sha256(said.encode()).hexdigest()[:40]}"


def dated(start: int, end: int, revision: int) -> int | None:
    """Say when the event of a revision happened: each in a minute of its own, so that the sum of one minute tells of
    one event. None where the slice has no more minutes: it goes on the next invoice.
    """
    at = end - revision * MINUTE - 1
    return at if at >= start else None
