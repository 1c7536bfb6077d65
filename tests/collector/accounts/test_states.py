"""Customers and keys change state only by the transitions of the tables."""

import itertools

import pytest

from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.accounts.states import (
    CUSTOMER_TRANSITIONS,
    DAY_MS,
    KEY_TRANSITIONS,
    ROTATED,
    AccountStateError,
    CustomerState,
    KeyState,
    compute_customer_state,
    compute_key_state,
    require_customer_transition,
    require_key_transition,
)

NOW = 100 * DAY_MS
CUSTOMER = CustomerRow("c", "acme", None, "basic", '{"tier":"basic"}', "{}", None, 0, None, None, 1)
CUSTOMERS = {
    "active": CUSTOMER,
    "paused": CUSTOMER._replace(settings='{"tier":"basic","paused":{"why":"x"}}'),
    "deleting": CUSTOMER._replace(deleting_since=1),
    "deleted": CUSTOMER._replace(deleting_since=1, erased_at=2),
}
KEY = KeyRow("k", "c", "acme", "00", "edge", 0, 1)
KEYS = {
    "active": KEY,
    "due": KEY._replace(rotate_every=86400),
    "rotating": KEY._replace(successor="l", expires_at=NOW + 1),
    "expired": KEY._replace(expires_at=NOW),
    "restorable": KEY._replace(revoked_at=NOW - DAY_MS + 1),
    "revoked": KEY._replace(revoked_at=NOW - DAY_MS),
}
FINAL_KEYS = [
    KEY._replace(revoked_at=NOW, revoked_for=ROTATED, successor="l"),
    KEY._replace(revoked_at=NOW - 1, expires_at=NOW),
]


def test_each_state_is_computed() -> None:
    assert {state: compute_customer_state(row) for state, row in CUSTOMERS.items()} == {s: s for s in CustomerState}
    assert {state: compute_key_state(row, NOW) for state, row in KEYS.items()} == {s: s for s in KeyState}
    assert [compute_key_state(row, NOW) for row in FINAL_KEYS] == ["revoked", "revoked"]


CUSTOMER_STEPS = {
    "active": {"active", "paused", "deleting"},
    "paused": {"active", "paused", "deleting"},
    "deleting": {"active", "paused", "deleting", "deleted"},
    "deleted": set[str](),
}
KEY_STEPS = {
    "active": {"active", "rotating", "expired", "restorable", "revoked"},
    "due": {"due", "rotating", "expired", "restorable", "revoked"},
    "rotating": {"rotating", "restorable"},
    "expired": {"expired", "active", "due", "revoked"},
    "restorable": {"active", "due", "rotating"},
    "revoked": set[str](),
}


def test_customers_change_state_only_by_the_transitions_of_the_table() -> None:
    assert CUSTOMER_TRANSITIONS == CUSTOMER_STEPS
    for before, after in itertools.product(CUSTOMERS, CUSTOMERS):
        if after in CUSTOMER_STEPS[before]:
            require_customer_transition(CUSTOMERS[before], CUSTOMERS[after])
        else:
            with pytest.raises(AccountStateError, match=f"is {before}, and cannot be {after}"):
                require_customer_transition(CUSTOMERS[before], CUSTOMERS[after])


def test_keys_change_state_only_by_the_transitions_of_the_table() -> None:
    assert KEY_TRANSITIONS == KEY_STEPS
    for before, after in itertools.product(KEYS, KEYS):
        if after in KEY_STEPS[before]:
            require_key_transition(KEYS[before], KEYS[after], NOW)
        else:
            with pytest.raises(AccountStateError, match=f"is {before}, and cannot be {after}"):
                require_key_transition(KEYS[before], KEYS[after], NOW)
