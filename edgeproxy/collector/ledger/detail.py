"""Limit on how far back customers see detailed usage, set by their tier. Pure.

Older usage is available to them as totals of whole months, as on invoices.
"""

from dataclasses import replace
from datetime import UTC, datetime

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.ledger.queries import SECONDS, InvalidQueryError, LedgerQuery, format_time

DETAILS = (*SECONDS, "route", "region")
"""Fields that only detail is grouped by."""


def find_detail_start(detail_seconds: float, now: float) -> int:
    """Return the Unix second from which on detail is shown: the day of UTC in which it begins, as a whole."""
    return int(now - detail_seconds) // DAY * DAY


def is_detailed(question: LedgerQuery) -> bool:
    """Return whether a query groups by a field that only detail has, or filters by one."""
    return any(name in DETAILS for name in (*question.by, *(question.where or ())[:1]))


def shorten_default(question: LedgerQuery, detail_seconds: float, now: float) -> LedgerQuery:
    """Return a query of the month so far, whose beginning nobody wrote, for as much of it as its detail is shown."""
    begin = find_detail_start(detail_seconds, now)
    if not is_detailed(question) or not question.since < begin <= question.until:
        return question
    return replace(question, since=begin)


def require_detail(
    question: LedgerQuery, detail_seconds: float | None, now: float, billed_since: int | None = None
) -> None:
    """Raise InvalidQueryError where a customer asks for detail that is older than `detail_seconds`; None: as old as it
    is. Of what is billed since a Unix second the total is shown, as the upcoming invoice has it."""
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
    """Return whether a month of UTC begins at this Unix second."""
    at = datetime.fromtimestamp(second, UTC)
    return (at.day, at.hour, at.minute, at.second) == (1, 0, 0, 0)
