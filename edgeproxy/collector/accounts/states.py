"""The states of customers and keys, and the transitions between them. Pure.

    customer   active ◀──▶ paused          key   active ──▶ due ──▶ rotating
                  │ ▲      │ ▲                      │ ▲                 │
                  ▼ │      ▼ │                      ▼ │ within a day    ▼
                  deleting ──▶ deleted           restorable ──▶ revoked, expired

A state is computed from columns, and for keys also from the time: a key becomes due or expires, and its revocation
becomes final, without a change. `customers.transition` and `key_rows.transition` make all changes, and follow these
tables.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import orjson

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.problems import account_codes

DAY_MS = 86_400_000
ROTATED = "rotated"
"""The revocation reason of a key that was replaced without an overlap."""
WITHDRAWN = "withdrawn"
"""The revocation reason of a key whose secret was still on its way to its customer."""


class CustomerState(StrEnum):
    """The state of a customer."""

    ACTIVE = "active"
    PAUSED = "paused"
    """Refused by edges for now."""
    DELETING = "deleting"
    """Refused by edges, and erased after `retention.deleted`."""
    DELETED = "deleted"
    """Erased; only the name, the id and the tier remain."""


class KeyState(StrEnum):
    """The state of a key."""

    ACTIVE = "active"
    DUE = "due"
    """Active, and due for rotation."""
    ROTATING = "rotating"
    """Active until the overlap with its successor ends."""
    EXPIRED = "expired"
    RESTORABLE = "restorable"
    """Revoked; the revocation can be undone. The API also calls it revoked."""
    REVOKED = "revoked"
    """Revoked for good."""


_OPEN = frozenset({CustomerState.ACTIVE, CustomerState.PAUSED, CustomerState.DELETING})
CUSTOMER_TRANSITIONS: Final[Mapping[CustomerState, frozenset[CustomerState]]] = {
    CustomerState.ACTIVE: _OPEN,
    CustomerState.PAUSED: _OPEN,
    CustomerState.DELETING: _OPEN | {CustomerState.DELETED},
    CustomerState.DELETED: frozenset(),
}
"""The states that a change may move a customer to, by its current state."""

KEY_TRANSITIONS: Final[Mapping[KeyState, frozenset[KeyState]]] = {
    # An imported file can set any end, even a past one.
    KeyState.ACTIVE: frozenset(
        {KeyState.ACTIVE, KeyState.ROTATING, KeyState.RESTORABLE, KeyState.REVOKED, KeyState.EXPIRED}
    ),
    KeyState.DUE: frozenset({KeyState.DUE, KeyState.ROTATING, KeyState.RESTORABLE, KeyState.REVOKED, KeyState.EXPIRED}),
    KeyState.ROTATING: frozenset({KeyState.ROTATING, KeyState.RESTORABLE}),
    KeyState.EXPIRED: frozenset({KeyState.EXPIRED, KeyState.ACTIVE, KeyState.DUE, KeyState.REVOKED}),
    KeyState.RESTORABLE: frozenset({KeyState.ACTIVE, KeyState.DUE, KeyState.ROTATING}),
    KeyState.REVOKED: frozenset(),
}
"""The states that a change may move a key to, by its current state."""
USABLE_KEY_STATES = frozenset({KeyState.ACTIVE, KeyState.DUE, KeyState.ROTATING})
"""The states of keys that edges accept."""


class AccountStateError(ChangeRejectedError):
    """The transition of a customer or a key is not allowed, or its row has changed meanwhile."""


def compute_customer_state(row: CustomerRow) -> CustomerState:
    """Return the state of a customer."""
    if row.erased_at is not None:
        return CustomerState.DELETED
    if row.deleting_since is not None:
        return CustomerState.DELETING
    return CustomerState.PAUSED if "paused" in orjson.loads(row.settings) else CustomerState.ACTIVE


def compute_key_state(row: KeyRow, now_ms: int) -> KeyState:
    """Return the state of a key at this time."""
    if row.revoked_at is not None:
        until = compute_restorable_until(row)
        return KeyState.REVOKED if until is None or until <= now_ms else KeyState.RESTORABLE
    if row.expires_at is not None and row.expires_at <= now_ms:
        return KeyState.EXPIRED
    if row.successor is not None:
        return KeyState.ROTATING
    rotate_by = compute_rotate_by(row)
    return KeyState.DUE if rotate_by is not None and rotate_by <= now_ms else KeyState.ACTIVE


def compute_rotate_by(row: KeyRow) -> int | None:
    """Return the Unix millisecond when a key becomes due for rotation.

    None if its customer has no `rotate_every`, or if the key has a successor.
    """
    if row.rotate_every is None or row.successor is not None:
        return None
    return row.created_at + row.rotate_every * 1000


def compute_restorable_until(row: KeyRow) -> int | None:
    """Return the Unix millisecond until which a key's revocation can be undone: a day, but at most its expiry.

    None if the key was not revoked, was replaced at once, or never reached its customer.
    """
    if row.revoked_at is None or row.revoked_for in (ROTATED, WITHDRAWN):
        return None
    until = row.revoked_at + DAY_MS
    return until if row.expires_at is None else min(until, row.expires_at)


def require_customer_transition(before: CustomerRow, after: CustomerRow) -> None:
    """Raise AccountStateError if CUSTOMER_TRANSITIONS has no step between the states of two rows of a customer."""
    states = compute_customer_state(before), compute_customer_state(after)
    if states[1] not in CUSTOMER_TRANSITIONS[states[0]]:
        raise AccountStateError(account_codes.CUSTOMER_STATE, f"the customer is {states[0]}, and cannot be {states[1]}")


def require_key_transition(before: KeyRow, after: KeyRow, now_ms: int) -> None:
    """Raise AccountStateError if KEY_TRANSITIONS has no step between the states of two rows of a key."""
    states = compute_key_state(before, now_ms), compute_key_state(after, now_ms)
    if states[1] not in KEY_TRANSITIONS[states[0]]:
        raise AccountStateError(account_codes.KEY_STATE, f"the key is {states[0]}, and cannot be {states[1]}")
