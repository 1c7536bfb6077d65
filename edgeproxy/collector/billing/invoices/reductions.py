"""The part of an invoice that a credit note or a lost dispute takes off, as journal entries. Pure.

Each line loses the same share. The books defer and earn less of a credited fee, and take back its revenue so far. The
sums of several reductions are exact to the smallest unit.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from edgeproxy.collector.billing.invoices.invoiced_lines import take_off
from edgeproxy.collector.billing.journal.postings import CENT, JournalEntry
from edgeproxy.collector.billing.rating.rater import DISCOUNT, RatedLine

FeeSpan = tuple[int, int, int]
"""The amount of a fee in smallest units, and the Unix seconds between which it is earned."""


class ReducedInvoice(NamedTuple):
    """An invoice to reduce. Amounts are in the smallest unit of its currency."""

    lines: Sequence[RatedLine]
    subtotal: int
    total: int
    """The sum with tax."""
    reduced: int
    """The sum of the reductions booked so far."""
    unit: int = 1
    """All payments in the currency are multiples of this amount."""


class Reduction(NamedTuple):
    """The booking of a reduction."""

    entries: tuple[JournalEntry, ...]
    """The entries without those for the returned money. Debits are positive."""
    fees: Sequence[FeeSpan]
    """The reductions of earned fees, as negative amounts."""


def is_fee(line: RatedLine) -> bool:
    """Return whether a line is earned over the days that it pays for."""
    return not line.meter and line.kind != DISCOUNT


def compute_reduction(invoice: ReducedInvoice, amount: int, *, has_tax: bool) -> Reduction:
    """Return the entries that take an amount off an invoice. A negative amount ends a reduction.

    The entries sum to `amount`. Without `has_tax` the tax stays, and the whole amount reduces revenue.
    """
    before, after = (_share(invoice, reduced) for reduced in (invoice.reduced, invoice.reduced + amount))
    changes = [
        (line, line.taken_off - earlier.taken_off)
        for line, earlier in zip(
            *(take_off(invoice.lines, share, invoice.unit) for share in (after, before)), strict=True
        )
    ]
    fees = [(-change, line.span.start, line.span.end) for line, change in changes if is_fee(line) and change]
    discounts = sum(change for line, change in changes if line.kind == DISCOUNT)
    tax = invoice.total - invoice.subtotal if has_tax else 0
    taxed = round(tax * after) - round(tax * before)
    rest = amount - taxed - sum(change for _, change in changes)
    entries = (
        JournalEntry("deferred_fees", -CENT * sum(change for change, _, _ in fees)),
        *(JournalEntry("revenue", CENT * change, "", line.meter, line.value) for line, change in changes if line.meter),
        JournalEntry("revenue", CENT * rest),
        JournalEntry("discounts", CENT * discounts),
        JournalEntry("tax", CENT * taxed),
    )
    return Reduction(tuple(entry for entry in entries if entry.amount), fees)


def _share(invoice: ReducedInvoice, reduced: int) -> Fraction:
    """Return the share of an invoice that is taken off, from 0 to 1."""
    return Fraction(min(max(reduced, 0), invoice.total), invoice.total) if invoice.total > 0 else Fraction(0)
