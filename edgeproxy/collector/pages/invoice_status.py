"""The payment status of invoices: whether they are due, the days overdue, the page for payment, and sums. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from typing_extensions import TypedDict

from edgeproxy.collector.languages.reader import parse_time

DAY_SECONDS = 86400


class InvoiceView(TypedDict):
    """An invoice from the API. Only the fields that this module reads; templates read more."""

    id: str
    state: str
    amount_due: int
    currency: str
    due_at: str | None
    url: str | None


class OwedInvoice(NamedTuple):
    """An open invoice with an unpaid amount."""

    invoice: InvoiceView
    days: int
    """The whole days since the due date; 0 before it."""
    is_due: bool
    """True if the due date has passed."""
    pay_url: str | None
    """Stripe's page for payment, or None if there is none."""


class OwedAmounts(TypedDict):
    """The open invoices of a currency, from the API, in its smallest units."""

    currency: str
    invoices: int
    amount_due: int
    due: int
    next_due_at: str | None
    overdue_invoices: int
    overdue: int
    oldest_due_at: str | None


class Receivables(NamedTuple):
    """The open invoices of a customer or of all. Sums are by currency, in its smallest units."""

    number: int
    due: Mapping[str, int]
    """Amounts to pay, whether or not their due date has passed."""
    passed: Mapping[str, int]
    """Amounts whose due date has passed, or that have none."""
    later: Mapping[str, int]
    """The other amounts."""
    next_due_at: str | None
    """The earliest due date of the other amounts."""
    overdue: int
    """The number of invoices that were due a day ago or earlier."""
    sums: Mapping[str, int]
    """The amounts of these invoices."""
    days: int
    """The days since the oldest due date; 0 if none is overdue."""


def sum_receivables(receivables: Sequence[OwedAmounts], now: float) -> Receivables:
    """Return the API's sums by currency as sums of all currencies at the Unix second `now`."""
    oldest = [parse_time(one["oldest_due_at"]).timestamp() for one in receivables if one["oldest_due_at"]]
    return Receivables(
        sum(one["invoices"] for one in receivables),
        {one["currency"]: one["amount_due"] for one in receivables},
        {one["currency"]: one["due"] for one in receivables if one["due"]},
        {one["currency"]: one["amount_due"] - one["due"] for one in receivables if one["amount_due"] > one["due"]},
        min((one["next_due_at"] for one in receivables if one["next_due_at"]), default=None),
        sum(one["overdue_invoices"] for one in receivables),
        {one["currency"]: one["overdue"] for one in receivables if one["overdue_invoices"]},
        int((now - min(oldest)) // DAY_SECONDS) if oldest else 0,
    )


def find_owed(invoices: Sequence[InvoiceView], now: float, stripe: str) -> list[OwedInvoice]:
    """Return the open invoices with an unpaid amount at the Unix second `now`, earliest due date first.

    `stripe` is the URL of Stripe's API. A sandbox has another URL.
    """
    owed = [
        OwedInvoice(invoice, compute_overdue_days(invoice, now), is_due(invoice, now), find_pay_url(invoice, stripe))
        for invoice in invoices
        if invoice["state"] == "open" and invoice["amount_due"] > 0
    ]
    return sorted(
        owed,
        key=lambda owed_invoice: (-owed_invoice.days, not owed_invoice.is_due, owed_invoice.invoice["due_at"] or ""),
    )


def is_due(invoice: InvoiceView, now: float) -> bool:
    """Return True if an open invoice has passed its due date or has none."""
    return invoice["due_at"] is None or parse_time(invoice["due_at"]).timestamp() <= now


def compute_overdue_days(invoice: InvoiceView, now: float) -> int:
    """Return the whole days since an open invoice was due, or 0 for other invoices."""
    if invoice["state"] != "open" or invoice["due_at"] is None:
        return 0
    return max(0, int((now - parse_time(invoice["due_at"]).timestamp()) // DAY_SECONDS))


def find_pay_url(invoice: InvoiceView, stripe: str) -> str | None:
    """Return Stripe's page of an invoice if its URL has HTTPS or belongs to the sandbox; else None."""
    url = invoice["url"]
    return url if url is not None and url.startswith(("https://", f"{stripe}/")) else None
