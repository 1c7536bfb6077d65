"""Invoices and credit notes as the API shows them."""

from typing import Annotated, Literal, NotRequired

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.customer_billing import CustomerQuery
from edgeproxy.collector.api.field_types import Cursor, PageLimit, Printed, Truth, exact
from edgeproxy.collector.billing.invoices.line_rows import InvoiceLine

CENTS_MAX = 10**12
Cents = Annotated[
    int,
    exact(int, f"a whole number of cents from 1 to {CENTS_MAX}", 1, CENTS_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": CENTS_MAX}),
]


class UpcomingQuery(CustomerQuery):
    """The customer of an upcoming invoice, and whether amounts are projected."""

    projected: Truth = False
    """True adds the amounts that the period ends with at the pace of the last seven days."""


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


class ReasonRequest(Body):
    """The reason of a change by a person."""

    why: Text
    """The reason, for the audit log and for other operators."""


class CreateCreditNoteRequest(ReasonRequest):
    """The amount of an invoice to credit, and the reason."""

    amount: Cents
    """The amount that is credited, in cents; at most what is left of the invoice."""


class SettleInvoiceRequest(ReasonRequest):
    """The amount that was paid elsewhere, and the reason, such as the reference of a transfer."""

    amount: Cents
    """The amount that came, in cents: all that is due."""


class InvoiceAmounts(TypedDict):
    """The totals of invoice lines, before tax. Amounts are cents."""

    subtotal: int
    """The sum of the lines, in cents before tax."""
    total: int
    """The sum that is due, in cents before tax."""
    lines: list[InvoiceLine]
    """The lines of the invoice."""


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
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    closes_at: str | None
    """The time at which the invoice is closed: usage that comes until then is on it."""
    projected: NotRequired[InvoiceAmounts]
    """The amounts at the pace of the last seven days, where the query asks for them."""


class CreditNoteResponse(TypedDict):
    """A credit note for an invoice."""

    id: str
    """The id of the credit note."""
    invoice: str
    """The id of the invoice."""
    amount: int
    """The credited amount in cents."""
    why: str
    """The reason that an operator gave."""
    state: Literal["requested", "made", "refused"]
    """`requested` until Stripe has answered, then `made` or `refused`."""
    created_at: NotRequired[str | None]
    """The time at which the credit note was created."""
