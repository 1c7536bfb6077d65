"""What the endpoints of billing take and give, as the description shows it and, where it is sent, as it is checked."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body, Text
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import ChangeQuery, Cursor, PageLimit, Printed, Truth, exact
from edgeproxy.collector.billing.invoices.line_rows import InvoiceLine
from edgeproxy.config.collector.catalog import VERSION
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import format_value, read_text, value_error

A_PLAN = "the name of a plan such as standard, or a version such as standard@3"
PLAN_SCHEMA = {
    "type": "string",
    "pattern": r"^[a-z0-9][a-z0-9-]{0,47}(@[1-9][0-9]{0,5}(\+[A-Za-z0-9][A-Za-z0-9_-]{0,63})?)?$",
    "examples": ["standard", "standard@3"],
}
CENTS_MAX = 10**12
INTERVALS = ("month", "year")


def read_plan(value: object) -> str:
    """Read the name of a plan, or of a version of it."""
    text = read_text(value, A_PLAN)
    if not VERSION.fullmatch(text if "@" in text else f"{text}@1"):
        raise value_error(f"{format_value(text)} is no plan", A_PLAN)
    return text


PlanName = Annotated[str, BeforeValidator(read_plan), WithJsonSchema(PLAN_SCHEMA)]
Cents = Annotated[
    int,
    exact(int, f"a whole number of cents from 1 to {CENTS_MAX}", 1, CENTS_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": CENTS_MAX}),
]


class WhoseQuery(Query):
    """Whose; a customer need not say."""

    customer: Printed | None = None
    """The customer, by id or name; a customer's own token need not name it."""


class WhoseChangeQuery(ChangeQuery):
    """Whose, and how a change is made."""

    customer: Printed | None = None
    """The customer, by id or name; a customer's own token need not name it."""


class UpgradeQuery(WhoseChangeQuery):
    """To which tier of the edge."""

    tier: Name
    """The tier of the edge whose plan is chosen."""


class CancelQuery(WhoseChangeQuery):
    """When a subscription ends."""

    when: Literal["now", "period_end"] = "period_end"
    """`period_end` ends the subscription when its paid period ends, `now` at once."""


class UpcomingQuery(WhoseQuery):
    """Whose, and how much of it."""

    projected: Truth = False
    """True adds the amounts that the period ends with at the pace of the last seven days."""


class InvoicesQuery(WhoseQuery):
    """Which invoices."""

    limit: PageLimit = 100
    """The number of invoices on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    period: Printed | None = None
    """Only invoices of the period that begins on this day, such as 2027-03-01."""
    state: Printed | None = None
    """Only invoices in this state, such as `open`."""


class CreateSubscriptionRequest(Body):
    """A subscription as it begins."""

    plan: PlanName
    """The plan by its name, which is its newest version, or by a version such as `standard@3`."""
    interval: Literal["month", "year"] = "month"
    """The interval for which the fee is paid in advance."""


class UpdateSubscriptionRequest(Body):
    """A change to another plan."""

    plan: PlanName
    """The plan by its name, which is its newest version, or by a version such as `standard@3`."""
    when: Literal["now", "period_end"] | None = None
    """The time of the change; by default `now` for a plan that costs more, `period_end` for one that costs less."""


class PreviewSubscriptionRequest(UpdateSubscriptionRequest):
    """What somebody thinks of changing, or of beginning."""

    interval: Literal["month", "year"] = "month"
    """The interval for which the fee is paid in advance; it counts where there is no subscription yet."""


class ReasonRequest(Body):
    """Why a person does this."""

    why: Text
    """The reason, for the audit log and for other operators."""


class CreateCreditNoteRequest(ReasonRequest):
    """What is taken back of an invoice."""

    amount: Cents
    """The amount that is credited, in cents; at most what is left of the invoice."""


class PlanResponse(TypedDict):
    """A plan that is sold. Amounts are cents, unit prices cents a unit."""

    plan: str
    """The name of the plan, such as `standard`."""
    name: str
    """The name that customers read."""
    version: str
    """The version of the plan that is sold, such as `standard@3`."""
    tier: str
    """The tier of the edge whose limits and quotas come with the plan."""
    fee: int
    """The fee of a month, in cents."""
    year_fee: int | None
    """The fee of a year, in cents; null where the plan is not sold by the year."""
    meters: dict[str, dict[str, Any]]
    """For each meter: `included` units, `cap`, and `price`, `tiers` or prices `by` a dimension, in cents a unit."""
    entitlements: dict[str, str]
    """Further features of the plan, by name."""


class PlanList(TypedDict):
    """All plans that are sold."""

    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    plans: list[PlanResponse]
    """The plans, each in its newest version."""


class BillingStatusResponse(TypedDict):
    """Whether anything can be bought, and anybody is charged."""

    mode: str
    """`off` charges nobody, `shadow` computes invoices without sending them, `live` charges."""
    purchase: bool
    """Whether customers can buy plans and credits now."""
    charging: bool
    """Whether customers are charged now."""
    message: str | None
    """A message for customers while charging is stopped; null otherwise."""


class SubscriptionPreview(TypedDict):
    """What a change comes to. Amounts are cents."""

    plan: str
    """The version of the plan that the change leads to."""
    when: str
    """`now` or `period_end`."""
    at: str | None
    """The time of the change."""
    due_now: int
    """The amount that is due with the change, in cents before tax; below zero it is returned."""
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    lines: list[InvoiceLine]
    """The invoice lines that make up the amount."""


class MeterUsageResponse(TypedDict):
    """What was used of a meter in this period, beside what the plan includes."""

    meter: str
    """The name of the meter."""
    quantity: int
    """The units used in this period."""
    included: int | None
    """The units that the plan includes; null where it includes any number."""
    percentage: float | None
    """The share of the included units that is used, in percent; null where that has no meaning."""
    is_over: bool
    """Whether more is used than is included."""
    overage: int
    """The units above those that are included."""
    cap: str | None
    """`soft` lets usage above the included units pass, `hard` refuses it; null where there is no cap."""
    is_billed: bool
    """Whether the plan has a price for this meter."""


class BilledUsage(TypedDict):
    """What was used in this period."""

    customer: str
    """The customer, by name."""
    plan: str
    """The version of the plan."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    meters: list[MeterUsageResponse]
    """The usage of each meter."""


class InvoiceAmounts(TypedDict):
    """What lines come to, before tax. Amounts are cents."""

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
    """What is taken back of an invoice."""

    id: str
    """The id of the credit note."""
    invoice: str
    """The id of the invoice."""
    amount: int
    """The credited amount in cents."""
    why: str
    """The reason that an operator gave."""
    state: str
    """`requested` until Stripe has answered, then `made` or `refused`."""
    created_at: NotRequired[str | None]
    """The time at which the credit note was created."""
