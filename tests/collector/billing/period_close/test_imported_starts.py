"""The outcome of an imported subscription at its start time, by the state of Stripe's subscription."""

from typing import Any

import pytest

from edgeproxy.collector.billing.period_close.imported_starts import StartStep, decide_start

BEGINS = 1_800_000_000
"""The end of the period at Stripe, a whole minute."""


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({"status": "canceled", "ended_at": BEGINS}, StartStep.BEGIN),
        ({"status": "canceled", "ended_at": BEGINS - 59}, StartStep.BEGIN),
        ({"status": "canceled", "ended_at": BEGINS + 3600}, StartStep.BEGIN),
        ({"status": "canceled", "ended_at": BEGINS - 61}, StartStep.DROP),
        ({"status": "canceled", "ended_at": BEGINS + 3601}, StartStep.DROP),
        ({"cancel_at_period_end": True}, StartStep.WAIT),
        ({"cancel_at_period_end": True, "end": BEGINS + 86400 - 13}, StartStep.POSTPONE),
        ({"end": BEGINS + 86400}, StartStep.DROP),
        ({}, StartStep.DROP),
    ],
)
def test_a_subscription_begins_once_stripes_has_ended_with_its_period(fields: dict[str, Any], step: StartStep) -> None:
    items = {"data": [{"current_period_end": fields.pop("end", BEGINS - 13)}]}
    theirs = {"status": "active", "cancel_at_period_end": False, "ended_at": None, "items": items, **fields}
    decision = decide_start(BEGINS, theirs)
    assert decision.step is step
    assert decision.at == (BEGINS + 86400 if step is StartStep.POSTPONE else 0)
    assert bool(decision.why) == (step is StartStep.DROP)
