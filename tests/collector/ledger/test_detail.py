"""Customers see recent usage in detail, and older usage in coarse totals."""

import pytest

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.ledger.detail import require_detail
from edgeproxy.collector.ledger.queries import InvalidQueryError, LedgerQuery
from edgeproxy.wire.batch import UNIX_SECONDS_MAX

NOW = 1_795_305_600.0 + 3600
"""01:00 on 22 November 2026 (UTC)."""
TODAY = int(NOW) - 3600
NOVEMBER, OCTOBER = TODAY - 21 * DAY, TODAY - 52 * DAY
WEEK = 7.0 * DAY

BILLED = NOVEMBER + 3 * DAY + 61
"""The minute of a subscription's start."""


@pytest.mark.parametrize(
    ("since", "until", "by", "kept", "is_shown"),
    [
        (TODAY - 7 * DAY, UNIX_SECONDS_MAX, ("minute", "route"), WEEK, True),
        (TODAY - 7 * DAY - 1, UNIX_SECONDS_MAX, ("minute",), WEEK, False),
        (TODAY - 7 * DAY - 1, UNIX_SECONDS_MAX, ("minute",), None, True),
        (NOVEMBER, UNIX_SECONDS_MAX, (), WEEK, True),
        (NOVEMBER, UNIX_SECONDS_MAX, ("meter", "model"), WEEK, True),
        (NOVEMBER, UNIX_SECONDS_MAX, ("day",), WEEK, False),
        (NOVEMBER, UNIX_SECONDS_MAX, ("region",), WEEK, False),
        (OCTOBER, NOVEMBER, ("meter",), WEEK, True),
        (OCTOBER, NOVEMBER + DAY, ("meter",), WEEK, False),
        (OCTOBER + DAY, NOVEMBER, ("meter",), WEEK, False),
        (BILLED, UNIX_SECONDS_MAX, ("meter", "model"), WEEK, True),
        (BILLED, UNIX_SECONDS_MAX, ("day",), WEEK, False),
        (BILLED, TODAY, ("meter",), WEEK, False),
        (BILLED + 1, UNIX_SECONDS_MAX, ("meter",), WEEK, False),
    ],
)
def test_older_usage_is_shown_only_by_month_or_since_the_subscription(
    since: int, until: int, by: tuple[str, ...], kept: float | None, is_shown: bool
) -> None:
    question = LedgerQuery("acme", None, since, until, by)
    if is_shown:
        require_detail(question, kept, NOW, BILLED)
    else:
        with pytest.raises(InvalidQueryError, match="detail is shown for 7 days, since 2026-11-15T00:00:00Z"):
            require_detail(question, kept, NOW, BILLED)
