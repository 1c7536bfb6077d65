"""Invoices and credit notes as the API shows them."""

from typing import Annotated, Literal, NotRequired

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.customer_billing import AnyCustomerQuery, CustomerQuery
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
    """The customer of an upcoming invoice, whether amounts are projected, and whether the plan ends before."""

    projected: Truth = False
    """True adds the projected amounts at the end of the period, low and high, from the last seven days."""
    ended: Truth = False
    """True shows the invoice that would follow if the plan ended now, without a projection."""


class ClosingQuery(Query):
    """The period that would be closed."""

    period: Printed
    """The period: a month like 2027-03, or its first day, for example 2027-03-01."""


class InvoiceWithParties(Invoice):
    """An invoice, its buyer and its seller."""

    buyer: InvoiceBuyer | None
    """The buyer, as Stripe has printed it; null until the invoice is open."""
    seller: InvoiceSeller | None
    """The seller; null if it is not known."""


class InvoicesQuery(AnyCustomerQuery):
    """Filters of invoices, and the page."""

    limit: PageLimit = 100
    """The number of invoices on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    period: Printed | None = None
    """Only invoices of the period that starts on this day, for example 2027-03-01."""
    state: Printed | None = None
    """Only invoices in this state, for example `open`."""
    number: Printed | None = None
    """Only the invoice with this number, as Stripe has printed it."""
    sort: Literal["created_at", "-created_at", "due_at", "-due_at", "total", "-total", "amount_due", "-amount_due"] = (
        "-created_at"
    )
    """The order of invoices; `-` reverses it. Orders other than `created_at` need a `customer`, or a `state` that
    invoices leave again, for example `open`. Invoices without a due date sort as the earliest.
    """


class DisputesQuery(AnyCustomerQuery):
    """Filters of disputes, and the page."""

    limit: PageLimit = 100
    """The number of disputes on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    state: Literal["open", "inquiry", "needs_response", "under_review", "won", "lost", "closed"] | None = None
    """Only disputes in this state; the bank has not decided `open` ones."""
    sort: Literal["-created_at"] = "-created_at"
    """The order of disputes: newest first."""


class ReasonRequest(Body):
    """The reason for an operator's change."""

    why: Text
    """The reason, for the audit log and for other operators."""


class CreateCreditNoteRequest(ReasonRequest):
    """The amount of an invoice to credit, and the reason."""

    amount: Cents
    """The amount to credit, in the smallest unit (for example cents); at most the rest of the invoice."""


class SettleInvoiceRequest(ReasonRequest):
    """The amount that was paid elsewhere, and the reason, for example the reference of a transfer."""

    amount: Cents
    """The amount that was paid, in the smallest unit (for example cents). It must be the whole amount due."""


class InvoiceAmounts(TypedDict):
    """The totals of invoice lines, before tax. Amounts are in the smallest unit of the currency, for example cents."""

    subtotal: int
    """The sum of the lines, in the smallest unit, before tax."""
    total: int
    """The sum due, in the smallest unit, before tax."""
    lines: list[InvoiceLine]
    """The lines of the invoice."""


class InvoiceProjection(TypedDict):
    """The projected amounts at the end of the period, from the low and the high day of the last seven."""

    days: int
    """The number of whole 24-hour days behind the projection, at most seven; fewer for a new customer."""
    low: InvoiceAmounts | None
    """The amounts if each day is like the one with the least usage; null if there were fewer than three days."""
    high: InvoiceAmounts | None
    """The amounts if each day is like the one with the most usage; null if there were fewer than three days."""


class UpcomingInvoiceResponse(InvoiceAmounts):
    """The next invoice without further usage. `projected` adds usage at the pace of the last seven days."""

    customer: str
    """The customer, by name."""
    period: str
    """The first day of the period in UTC, for example 2027-03-01."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    usage_start: str
    """The start of the usage on the invoice: the start of the period, or of a subscription that started within it."""
    currency: str
    """The currency of all amounts (ISO 4217), for example `usd`."""
    closes_at: str | None
    """The time when the invoice is closed. Usage that arrives before it is on the invoice."""
    projected: NotRequired[InvoiceProjection]
    """The amounts at the pace of the last seven days, low and high, if the query asks for them."""


class CostDayResponse(TypedDict):
    """The cost of the running period up to a time."""

    until: str
    """The end of a day of UTC, or now."""
    amount: int
    """The cost of the period until then."""


class PeriodCostsResponse(TypedDict):
    """The cost of the running period by day: fees and usage, before tax and without minimum fees.

    Amounts are in the smallest unit of the currency, for example cents.
    """

    customer: str
    """The customer, by name."""
    currency: str
    """The currency of all amounts (ISO 4217), for example `usd`."""
    period_start: str
    """The beginning of the period."""
    period_end: str
    """The end of the period."""
    days: list[CostDayResponse]
    """The days so far, in order of time. The last one has the cost as of now."""
    low: int | None
    """The cost of the whole period if each day is like the one with the least usage of the last seven; null if there
    were fewer than three days.
    """
    high: int | None
    """The cost of the whole period if each day is like the one with the most usage; null as above."""


class EarlierLine(TypedDict):
    """An earlier line with the price and segment of this one."""

    invoice: str
    """The id of the invoice with this line."""
    line: int
    """The position of the line on that invoice, from 0."""
    quantity: int
    """The billed units."""
    amount: int
    """The amount of the line."""


class UsedHour(TypedDict):
    """The usage of an hour."""

    hour: str
    """The beginning of the hour."""
    quantity: int
    """The units used in the hour."""


class PaidShareResponse(TypedDict):
    """The share of a fee that a line charges."""

    fee: int
    """The whole fee, in the currency's smallest unit."""
    paid_from: str | None
    """The start of the time that the fee covers."""
    paid_until: str | None
    """The end of that time."""


class LineExplanationResponse(TypedDict):
    """The computation of a line's amount: `rated` minus the amounts of earlier lines."""

    invoice: str
    """The id of the invoice."""
    line: int
    """The position of the line on the invoice, from 0."""
    text: str
    """The text of the line for the customer."""
    plan: str
    """The version of the plan that sets the price."""
    segment_start: str | None
    """The start of the segment: the part of the period when that version applied."""
    segment_end: str | None
    """The end of the segment."""
    quantity: int
    """The units of this line and of earlier lines."""
    unit_price: str | None
    """The price of a unit in the currency's smallest unit, as a decimal number; null for fees."""
    formula: str
    """The computation of the amount, with its numbers."""
    rated: int
    """The amount for that quantity, or for that share, in the currency's smallest unit."""
    share: PaidShareResponse | None
    """The fee and the share of it; null for usage."""
    earlier: list[EarlierLine]
    """Earlier lines with the price and segment of this one. Their amounts are subtracted."""
    amount: int
    """The amount of the line."""
    hours: list[UsedHour] | None
    """The usage of the meter in the segment by the hour, as known now; null if the line has no hours."""


class CreditNoteResponse(TypedDict):
    """A credit note for an invoice."""

    id: str
    """The id of the credit note."""
    invoice: str
    """The id of the invoice."""
    amount: int
    """The credited amount, in the smallest unit (for example cents)."""
    why: str
    """The reason that an operator gave."""
    state: Literal["requested", "made", "refused"]
    """`requested` until Stripe has answered, then `made` or `refused`."""
    created_at: NotRequired[str | None]
    """The time when the credit note was created."""
