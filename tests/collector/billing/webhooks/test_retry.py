"""When an event that failed is tried again."""

import pytest

from edgeproxy.collector.billing.webhooks.retry import PAUSES, POLL_ATTEMPTS_MAX, POLL_PAUSE, Cause, decide_retry

LAST = len(PAUSES) + POLL_ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("cause", "is_listed", "attempts", "pause"),
    [
        *((cause, True, 0, 5.0) for cause in Cause),
        *((cause, True, 4, 3600.0) for cause in Cause),
        (Cause.FAULT, False, 5, None),
        (Cause.UNAVAILABLE, True, LAST + 1, 3600.0),
        (Cause.UNBOOKED, False, 5, POLL_PAUSE),
        (Cause.UNBOOKED, True, 5, None),
        (Cause.UNBOOKED, False, LAST - 1, POLL_PAUSE),
        (Cause.UNBOOKED, False, LAST, None),
    ],
)
def test_each_failure_cause_has_its_retry_pauses(
    cause: Cause, is_listed: bool, attempts: int, pause: float | None
) -> None:
    assert decide_retry(attempts, cause, is_listed=is_listed).pause == pause


def test_event_that_waits_for_a_poll_is_retried_for_a_day() -> None:
    assert POLL_ATTEMPTS_MAX * POLL_PAUSE == 86400
