"""Invoices and credit notes as the API shows them."""

from typing import Annotated, Literal, NotRequired

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.customer_billing import CustomerQuery
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Cursor, PageLimit, Printed, Truth, exact
from edgeproxy.collector.billing.invoices.invoice_parties import InvoiceBuyer, InvoiceSeller
from edgeproxy.collector.billing.invoices.invoices import Invoice
from edgeproxy.collector.billing.invoices.line_rows import InvoiceLine

CENTS_MAX = 10**12
Cents = Annotated[
    int,
    exact(int, f"a whole number of smallest units, such as cents, from 1 to {CENTS_MAX}", 1, CENTS_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": CENTS_MAX}),
]


class UpcomingQuery(CustomerQuery):
    """The customer of an upcoming invoice, and whether amounts are projected."""

    projected: Truth = False
    """True adds the amounts that the period ends with at the pace of the last seven days, low and high."""


class ClosingQuery(Query):
    """The period that would be closed."""

    period: Printed
    """The period: a month such as 2027-03, or the day on which it begins, such as 2027-03-01."""


class InvoiceWithParties(Invoice):
    """An invoice, and whose it is."""

    buyer: InvoiceBuyer | None
    """Whom it is for, as Stripe has printed it; null until it is open."""
    seller: InvoiceSeller | None
    """Whom it is of; null where that is not known."""


class InvoicesQuery(CustomerQuery):
    """Filters of invoices, and the page."""

    limit: PageLimit = 100
    """The number of invoices on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    period: Printed | None = None
    """Only invoices of the period that begins on this day, such as 2027-03-01."""
    state: Printed | None = None
    """Only invoices in this state, such as `open`."""
    sort: Literal["created_at", "-created_at", "due_at", "-due_at", "total", "-total", "amount_due", "-amount_due"] = (
        "-created_at"
    )
    """The order of invoices; with `-` the other way round. Others than `created_at` need a `customer`, or a `state` in
    which invoices do not stay, such as `open`. Invoices that are not due yet are before all others."""


class DisputesQuery(CustomerQuery):
    """Filters of disputes, and the page."""

    limit: PageLimit = 100
    """The number of disputes on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    state: Literal["open", "inquiry", "needs_response", "under_review", "won", "lost", "closed"] | None = None
    """Only disputes in this state; `open` are those that the bank has not decided."""
    sort: Literal["-created_at"] = "-created_at"
    """The order of disputes: newest first."""


class ReasonRequest(Body):
    """The reason of a change by a person."""

    why: Text
    """The reason, for the audit log and for other operators."""


class CreateCreditNoteRequest(ReasonRequest):
    """The amount of an invoice to credit, and the reason."""

    amount: Cents
    """The amount that is credited, in smallest units such as cents; at most what is left of the invoice."""


class SettleInvoiceRequest(ReasonRequest):
    """The amount that was paid elsewhere, and the reason, such as the reference of a transfer."""

    amount: Cents
    """The amount that came, in smallest units such as cents: all that is due."""


class InvoiceAmounts(TypedDict):
    """The totals of invoice lines, before tax. Amounts are smallest units of the currency, such as cents."""

    subtotal: int
    """The sum of the lines, in smallest units before tax."""
    total: int
    """The sum that is due, in smallest units before tax."""
    lines: list[InvoiceLine]
    """The lines of the invoice."""


class InvoiceProjection(TypedDict):
    """The amounts that the period ends with, as on the low and as on the high day of the last seven."""

    days: int
    """The whole days that it goes by, of 24 hours, at most seven: fewer for a customer who is new."""
    low: InvoiceAmounts | None
    """The amounts if each day is as the one with the least usage; null where there were fewer than three days."""
    high: InvoiceAmounts | None
    """The amounts if each day is as the one with the most usage; null where there were fewer than three days."""


class UpcomingInvoiceResponse(InvoiceAmounts):
    """The next invoice, if nothing more were used; `projected`: if usage goes on as in the last seven days."""

    customer: str
    """The customer, by name."""
    period: str
    """The first day of the period in UTC, such as 2027-03-01."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    usage_start: str
    """The beginning of the usage that it has: that of the period, or of a subscription that began within it."""
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    closes_at: str | None
    """The time at which the invoice is closed: usage that comes until then is on it."""
    projected: NotRequired[InvoiceProjection]
    """The amounts at the pace of the last seven days, low and high, where the query asks for them."""


class EarlierLine(TypedDict):
    """An earlier line of the same price and segment."""

    invoice: str
    """The id of its invoice."""
    line: int
    """Its position on that invoice, from 0."""
    quantity: int
    """The units that it billed."""
    amount: int
    """Its amount."""


class UsedHour(TypedDict):
    """The usage of an hour."""

    hour: str
    """The beginning of the hour."""
    quantity: int
    """The units used in the hour."""


class PaidShareResponse(TypedDict):
    """The share of a fee that a line is for."""

    fee: int
    """All of the fee, in the currency's smallest unit."""
    paid_from: str | None
    """The beginning of the time that the fee is for."""
    paid_until: str | None
    """The end of that time."""


class LineExplanationResponse(TypedDict):
    """Why a line has its amount: `rated` less the amounts of earlier lines."""

    invoice: str
    """The id of the invoice."""
    line: int
    """The position of the line on it, from 0."""
    text: str
    """The line as the customer reads it."""
    plan: str
    """The version of the plan that sets the price."""
    segment_start: str | None
    """The beginning of the segment: the part of the period in which that version was in force."""
    segment_end: str | None
    """The end of the segment."""
    quantity: int
    """The units of this line and of earlier ones."""
    unit_price: str | None
    """The price of a unit in the currency's smallest unit, as a decimal number; null for fees."""
    formula: str
    """How the amount was computed, with its numbers."""
    rated: int
    """The amount of that quantity, or of that share, in the currency's smallest unit."""
    share: PaidShareResponse | None
    """The fee of which the line has a share; null for usage."""
    earlier: list[EarlierLine]
    """Earlier lines of the same price and segment, whose amounts are subtracted."""
    amount: int
    """The amount of the line."""
    hours: list[UsedHour] | None
    """The usage of the meter in the segment by the hour, as it is known now; null where it has no hours."""


class CreditNoteResponse(TypedDict):
    """A credit note for an invoice."""

    id: str
    """The id of the credit note."""
    invoice: str
    """The id of the invoice."""
    amount: int
    """The credited amount, in smallest units such as cents."""
    why: str
    """The reason that an operator gave."""
    state: Literal["requested", "made", "refused"]
    """`requested` until Stripe has answered, then `made` or `refused`."""
    created_at: NotRequired[str | None]
    """The time at which the credit note was created."""
