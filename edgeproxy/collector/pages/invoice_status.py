"""What an invoice asks of its customer: whether it is due, for how long it is overdue, where it is paid. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from typing_extensions import TypedDict

from edgeproxy.collector.languages.reader import parse_time

DAY_SECONDS = 86400


class InvoiceView(TypedDict):
    """An invoice of the API, as far as it is read here; templates read more fields."""

    id: str
    state: str
    amount_due: int
    currency: str
    due_at: str | None
    url: str | None


class OwedInvoice(NamedTuple):
    """An invoice that is open, and not paid."""

    invoice: InvoiceView
    days: int
    """The whole days for which it is overdue; 0 where it is not."""
    is_due: bool
    """Whether it is to be paid by now."""
    pay_url: str | None
    """Stripe's page at which it is paid; None where there is none."""


def find_owed(invoices: Sequence[InvoiceView], now: float, stripe: str) -> list[OwedInvoice]:
    """Return the open invoices of which something is due at the Unix second `now`, the one due first ahead.

    `stripe` is the URL of Stripe's API, which a sandbox has another one of.
    """
    owed = [
        OwedInvoice(invoice, compute_overdue_days(invoice, now), is_due(invoice, now), find_pay_url(invoice, stripe))
        for invoice in invoices
        if invoice["state"] == "open" and invoice["amount_due"] > 0
    ]
    return sorted(owed, key=lambda one: (-one.days, not one.is_due, one.invoice["due_at"] or ""))


def is_due(invoice: InvoiceView, now: float) -> bool:
    """Return whether an open invoice is to be paid by now: its due date has come, or it has none."""
    return invoice["due_at"] is None or parse_time(invoice["due_at"]).timestamp() <= now


def compute_overdue_days(invoice: InvoiceView, now: float) -> int:
    """Return the whole days since an open invoice was due; 0 for others."""
    if invoice["state"] != "open" or invoice["due_at"] is None:
        return 0
    return max(0, int((now - parse_time(invoice["due_at"]).timestamp()) // DAY_SECONDS))


def find_pay_url(invoice: InvoiceView, stripe: str) -> str | None:
    """Return Stripe's page of an invoice, of HTTPS or below the URL of a sandbox; None where there is none."""
    url = invoice["url"]
    return url if url is not None and url.startswith(("https://", f"{stripe}/")) else None
