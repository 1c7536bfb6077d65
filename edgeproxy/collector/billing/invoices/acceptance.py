"""The effect of accepting a held invoice: the amount that is sent to the customer. Pure."""

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.mismatch import InvoiceDifference


class Acceptance(TypedDict):
    """The invoice that goes out when a held invoice is accepted."""

    amount: int | None
    """The sum, in the smallest unit of the currency; null if it is not known yet."""
    of: Literal["lines", "stripe", "usage"]
    """The source of the sum. `lines`: the lines here, before tax, which Stripe adds. `stripe`: the invoice at Stripe,
    unchanged, whatever the lines here are. `usage`: lines that are written when the invoice is closed, and compared
    with Stripe's then.
    """


def has_total_of_stripe(row: InvoiceRow) -> bool:
    """Return whether a held invoice without lines has the total of one that a person finalized at Stripe."""
    return row.stripe_id is not None and row.total != 0


def build_acceptance(row: InvoiceRow, differences: Sequence[InvoiceDifference], *, is_written: bool) -> Acceptance:
    """Return the effect of accepting a held invoice. `differences` are those between its lines and Stripe's."""
    if not is_written:
        return {"amount": row.total, "of": "stripe"} if has_total_of_stripe(row) else {"amount": None, "of": "usage"}
    if not differences:
        return {"amount": row.total, "of": "lines"}
    if any(difference["of"] == "quantity" for difference in differences):  # Only Stripe knows the cost of these units.
        return {"amount": None, "of": "stripe"}
    return {"amount": row.total + sum(difference["difference"] for difference in differences), "of": "stripe"}
