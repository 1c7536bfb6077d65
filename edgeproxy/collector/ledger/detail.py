"""Limit on how far back customers see detailed usage, set by their tier. Pure.

Older usage is available to them as totals of whole months, as on invoices.
"""

from datetime import UTC, datetime

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.ledger.queries import SECONDS, InvalidQueryError, LedgerQuery, format_time

DETAILS = (*SECONDS, "route", "region")
"""Fields that only detail is grouped by."""


def require_detail(question: LedgerQuery, detail_seconds: float | None, now: float) -> None:
    """Raise BadQuery where a customer asks for detail that is older than `kept` seconds; None: as old as it is."""
    if detail_seconds is None:
        return
    begin = int(now - detail_seconds) // DAY * DAY
    if question.since >= begin:
        return
    is_total = not any(name in DETAILS for name in question.by)
    if is_total and is_month_start(question.since) and (question.until >= now or is_month_start(question.until)):
        return
    raise InvalidQueryError(
        f"from: detail is shown for {detail_seconds / DAY:g} days, since {format_time(begin)}; before that there are "
        f"totals of whole months of UTC, without {', '.join(DETAILS)}"
    )


def is_month_start(second: int) -> bool:
    """Return whether a month of UTC begins at this Unix second."""
    at = datetime.fromtimestamp(second, UTC)
    return (at.day, at.hour, at.minute, at.second) == (1, 0, 0, 0)
