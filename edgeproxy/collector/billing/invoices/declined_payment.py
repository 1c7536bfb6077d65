"""The declined payments of an invoice in the form of the API. Pure."""

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp


class DeclinedPayment(TypedDict):
    """The payments of an invoice that were declined."""

    times: int
    """The number of payments that were declined."""
    first_at: str | None
    """The time of the first one."""
    retry_at: str | None
    """The time of the next attempt; null if the payment waits for another payment method."""


def build_declined(declines: int | None, first_at: int | None, retry_at: int | None) -> DeclinedPayment | None:
    """Return the declined payments of an invoice, or None without any. Times are Unix seconds."""
    if not declines:
        return None
    return {"times": declines, "first_at": format_second(first_at), "retry_at": format_second(retry_at)}


def format_second(second: int | None) -> str | None:
    """Return a Unix second as RFC 3339; None stays None."""
    return None if second is None else format_timestamp(second * 1000)
