"""The declined payments of an invoice in the form of the API. Pure."""

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices.declines import DeclineReason, parse_reason


class DeclinedPayment(TypedDict):
    """The payments of an invoice that were declined."""

    times: int
    """The number of payments that were declined."""
    first_at: str | None
    """The time of the first one."""
    retry_at: str | None
    """The time of the next attempt; null if the payment waits for another payment method."""
    reason: DeclineReason
    """The reason for the last one; `other` if the bank stated none, or one that its customer must not read."""


def build_declined(
    declines: int | None, first_at: int | None, retry_at: int | None, reason: object
) -> DeclinedPayment | None:
    """Return the declined payments of an invoice, or None without any. Times are Unix seconds."""
    if not declines:
        return None
    return {
        "times": declines,
        "first_at": format_second(first_at),
        "retry_at": format_second(retry_at),
        "reason": parse_reason(reason),
    }


def format_second(second: int | None) -> str | None:
    """Return a Unix second as RFC 3339; None stays None."""
    return None if second is None else format_timestamp(second * 1000)
