"""Automatic top-up decides from the row and the balance alone: when it buys, when it waits, and when it is off."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.billing.credits.top_up_decision import (
    DECLINED,
    OFF,
    ON,
    RETRY_SECONDS,
    Decision,
    TopUp,
    add_paid,
    begin_purchase,
    decide_purchase,
    end_declined,
    end_dropped,
    end_paid,
    get_month,
    get_spent,
)

NOVEMBER, DECEMBER = CalendarMonth(2026, 11), CalendarMonth(2026, 12)
LAST, FIRST = DECEMBER.begin - 1, DECEMBER.begin
BOUNDS = (5, 100)
IDLE = TopUp("id-acme", ON, 10, 20, 60, NOVEMBER.begin, 40, 0, None, None, 0, 0)


@pytest.mark.parametrize(
    ("changes", "available", "now", "bounds", "expected"),
    [
        ({}, 9, LAST, BOUNDS, Decision(True, "below")),
        ({}, -1000, LAST, BOUNDS, Decision(True, "below")),
        ({}, 10, LAST, BOUNDS, Decision(False, "enough")),
        ({"state": OFF}, 0, LAST, BOUNDS, Decision(False, "off")),
        ({"state": DECLINED}, 0, LAST, BOUNDS, Decision(False, "off")),
        ({"purchase": "topup_1", "due_at": 7}, 0, LAST, BOUNDS, Decision(False, "pending", 7)),
        ({"declines": 1, "due_at": LAST + 1}, 0, LAST, BOUNDS, Decision(False, "waiting", LAST + 1)),
        ({"declines": 1, "due_at": LAST}, 0, LAST, BOUNDS, Decision(True, "below")),
        ({}, 0, LAST, None, Decision(False, "not_sold")),
        ({"amount": 101}, 0, LAST, BOUNDS, Decision(False, "not_sold")),
        ({"amount": 4}, 0, LAST, BOUNDS, Decision(False, "not_sold")),
        ({"spent": 41}, 0, LAST, BOUNDS, Decision(False, "month_spent", FIRST)),
        ({"spent": 60}, 0, FIRST, BOUNDS, Decision(True, "below")),
        # A clock that was set back begins no month again.
        ({"spent": 60, "month": FIRST}, 0, LAST, BOUNDS, Decision(False, "month_spent", FIRST)),
    ],
)
def test_purchase_begins_by_the_balance_the_state_and_the_month(
    changes: dict[str, Any], available: int, now: int, bounds: tuple[int, int] | None, expected: Decision
) -> None:
    assert decide_purchase(IDLE._replace(**changes), available, now, bounds) == expected


def test_third_declined_payment_turns_it_off() -> None:
    top_up, now = IDLE._replace(spent=0), LAST
    for seconds in (*RETRY_SECONDS, None):
        top_up = end_declined(begin_purchase(top_up, "topup_1", now), "funds", now)
        assert (top_up.purchase, top_up.spent, top_up.decline_reason) == (None, 0, "funds")
        assert top_up.due_at == (None if seconds is None else now + seconds * 1000)
        assert top_up.state == (DECLINED if seconds is None else ON)
    off = end_declined(IDLE._replace(state=OFF, declines=2, purchase="topup_1", purchase_amount=20), "funds", now)
    assert (off.state, off.declines, off.spent) == (OFF, 3, 20), "a person has turned it off meanwhile"


def test_late_payment_counts_in_the_month_in_which_it_arrives() -> None:
    assert add_paid(IDLE, 20, LAST) == IDLE._replace(spent=60)
    assert add_paid(IDLE, 20, FIRST) == IDLE._replace(month=FIRST, spent=20)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("paid", "paid", "paid", "declined", "dropped", "left")),
        st.integers(0, 80),  # The usage.
        st.integers(-3600, 12 * 86400),  # Seconds that pass.
        st.sampled_from((None, None, None, OFF, ON)),  # The action of a person.
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 30), st.integers(30, 60), st.integers(0, 200))
def test_top_ups_of_a_month_stay_within_its_limit(
    steps: list[tuple[str, int, int, str | None]], below: int, amount: int, beyond: int
) -> None:
    top_up = TopUp("id-acme", ON, below, amount, amount + beyond, 0, 0, 0, None, None, 0, 0)
    balance, now, latest, declined_in_a_row = 0, LAST, LAST, 0
    paid: Counter[CalendarMonth] = Counter()
    for result, used, seconds, person in steps:
        now, balance = now + seconds * 1000, balance - used
        latest = max(latest, now)
        if person is not None:
            top_up, declined_in_a_row = top_up._replace(state=person, declines=0, due_at=now), 0
        decision = decide_purchase(top_up, balance, now, BOUNDS)
        if not decision.buys:
            assert top_up.purchase is None or decision.reason in ("pending", "off")
        else:
            assert (top_up.purchase, balance < below, declined_in_a_row <= len(RETRY_SECONDS)) == (None, True, True)
            top_up = begin_purchase(top_up, "topup_1", now)
            month = get_month(latest)
        if top_up.purchase is None or result == "left":
            continue
        if result == "paid":
            balance, paid[month], declined_in_a_row = balance + amount, paid[month] + amount, 0
            top_up = end_paid(top_up, now)
        elif result == "declined":
            top_up, declined_in_a_row = end_declined(top_up, "funds", now), declined_in_a_row + 1
        else:
            top_up = end_dropped(top_up, now)
        assert get_spent(top_up, latest) == paid[get_month(latest)]
    assert all(total <= amount + beyond for total in paid.values())
