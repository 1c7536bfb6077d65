"""How far back customers see their usage in detail, as their tier says. Pure.

Older usage is there for them as totals of whole months, as invoices have it.
"""

from datetime import UTC, datetime

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.ledger.queries import SECONDS, Asked, BadQuery, written

DETAILS = (*SECONDS, "route", "region")
"""What only detail is grouped by."""


def require(question: Asked, kept: float | None, now: float) -> None:
    """Raise BadQuery where a customer asks for detail that is older than `kept` seconds; None: as old as it is."""
    if kept is None:
        return
    begin = int(now - kept) // DAY * DAY
    if question.since >= begin:
        return
    is_total = not any(name in DETAILS for name in question.by)
    if is_total and is_month(question.since) and (question.until >= now or is_month(question.until)):
        return
    raise BadQuery(
        f"from: detail is shown for {kept / DAY:g} days, since {written(begin)}; before that there are totals of whole "
        f"months of UTC, without {', '.join(DETAILS)}"
    )


def is_month(second: int) -> bool:
    """Whether a month of UTC begins at this Unix second."""
    at = datetime.fromtimestamp(second, UTC)
    return (at.day, at.hour, at.minute, at.second) == (1, 0, 0, 0)
