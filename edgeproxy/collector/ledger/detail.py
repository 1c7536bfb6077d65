"""The limit on how far back customers see detailed usage, set by their tier. Pure.

Older usage is available to them as totals of whole months, as on invoices.
"""

from dataclasses import replace
from datetime import UTC, datetime

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.ledger.queries import SECONDS, InvalidQueryError, LedgerQuery, format_time

DETAILS = (*SECONDS, "route", "region")
"""Fields that only detailed usage is grouped by."""


def find_detail_start(detail_seconds: float, now: float) -> int:
    """Return the first Unix second with shown detail: the start of the UTC day that the limit falls on."""
    return int(now - detail_seconds) // DAY * DAY


def is_detailed(question: LedgerQuery) -> bool:
    """Return whether a query groups or filters by a field that only detailed usage has."""
    return any(name in DETAILS for name in (*question.by, *(question.where or ())[:1]))


def shorten_default(question: LedgerQuery, detail_seconds: float, now: float) -> LedgerQuery:
    """Return a query with the default start (of the month), shortened to the time with visible detail."""
    begin = find_detail_start(detail_seconds, now)
    if not is_detailed(question) or not question.since < begin <= question.until:
        return question
    return replace(question, since=begin)


def require_detail(
    question: LedgerQuery, detail_seconds: float | None, now: float, billed_since: int | None = None
) -> None:
    """Raise InvalidQueryError if a customer requests detail older than `detail_seconds`; None sets no limit.

    The total since `billed_since`, a Unix second, is always shown, because the upcoming invoice has it, too.
    """
    if detail_seconds is None:
        return
    begin = find_detail_start(detail_seconds, now)
    if question.since >= begin:
        return
    is_billed = question.since == billed_since and question.until >= now
    ends_with_month = question.until >= now or is_month_start(question.until)
    if not is_detailed(question) and (is_billed or (is_month_start(question.since) and ends_with_month)):
        return
    raise InvalidQueryError(
        f"from: detail is shown for {detail_seconds / DAY:g} days, since {format_time(begin)}; before that there are "
        f"totals of whole months of UTC, without {', '.join(DETAILS)}"
    )


def is_month_start(second: int) -> bool:
    """Return whether a UTC month begins at this Unix second."""
    at = datetime.fromtimestamp(second, UTC)
    return (at.day, at.hour, at.minute, at.second) == (1, 0, 0, 0)
