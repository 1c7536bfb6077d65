"""What the endpoints of billing take and give, as the description shows it and, where it is sent, as it is checked."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body, Text
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import ChangeQuery, Cursor, PageLimit, Printed, Truth, exact
from edgeproxy.collector.billing.invoices.invoices import InvoiceLine
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
    said = read_text(value, A_PLAN)
    if not VERSION.fullmatch(said if "@" in said else f"{said}@1"):
        raise value_error(f"{format_value(said)} is no plan", A_PLAN)
    return said


PlanName = Annotated[str, BeforeValidator(read_plan), WithJsonSchema(PLAN_SCHEMA)]
Cents = Annotated[
    int,
    exact(int, f"a whole number of cents from 1 to {CENTS_MAX}", 1, CENTS_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": CENTS_MAX}),
]


class WhoseQuery(Query):
    """Whose; a customer need not say."""

    customer: Printed | None = None


class WhoseChangeQuery(ChangeQuery):
    """Whose, and how a change is made."""

    customer: Printed | None = None


class UpgradeQuery(WhoseChangeQuery):
    """To which tier of the edge."""

    tier: Name


class CancelQuery(WhoseChangeQuery):
    """When a subscription ends."""

    when: Literal["now", "period_end"] = "period_end"


class UpcomingQuery(WhoseQuery):
    """Whose, and how much of it."""

    projected: Truth = False
    """With what it comes to at the pace of the last seven days too."""


class InvoicesQuery(WhoseQuery):
    """Which invoices."""

    limit: PageLimit = 100
    cursor: Cursor | None = None
    period: Printed | None = None
    state: Printed | None = None


class CreateSubscriptionRequest(Body):
    """A subscription as it begins."""

    plan: PlanName
    interval: Literal["month", "year"] = "month"
    """What the fee is paid for in advance."""


class UpdateSubscriptionRequest(Body):
    """A change to another plan."""

    plan: PlanName
    when: Literal["now", "period_end"] | None = None
    """By default now to what costs more, and when what is paid ends to what costs less."""


class PreviewSubscriptionRequest(UpdateSubscriptionRequest):
    """What somebody thinks of changing, or of beginning."""

    interval: Literal["month", "year"] = "month"


class ReasonRequest(Body):
    """Why a person does this."""

    why: Text


class CreateCreditNoteRequest(ReasonRequest):
    """What is taken back of an invoice."""

    amount: Cents


class PlanResponse(TypedDict):
    """A plan that is sold. Amounts are cents, unit prices cents a unit."""

    plan: str
    name: str
    version: str
    tier: str
    fee: int
    year_fee: int | None
    meters: dict[str, dict[str, Any]]
    entitlements: dict[str, str]


class PlanList(TypedDict):
    """All plans that are sold."""

    currency: str
    plans: list[PlanResponse]


class BillingStatusResponse(TypedDict):
    """Whether anything can be bought, and anybody is charged."""

    mode: str
    purchase: bool
    charging: bool
    message: str | None


class SubscriptionPreview(TypedDict):
    """What a change comes to. Amounts are cents."""

    plan: str
    when: str
    at: str | None
    due_now: int
    currency: str
    lines: list[InvoiceLine]


class MeterUsageResponse(TypedDict):
    """What was used of a meter in this period, beside what the plan includes."""

    meter: str
    quantity: int
    included: int | None
    percentage: float | None
    is_over: bool
    overage: int
    cap: str | None
    is_billed: bool


class BilledUsage(TypedDict):
    """What was used in this period."""

    customer: str
    plan: str
    period_start: str | None
    period_end: str | None
    meters: list[MeterUsageResponse]


class InvoiceAmounts(TypedDict):
    """What lines come to, before tax. Amounts are cents."""

    subtotal: int
    total: int
    lines: list[InvoiceLine]


class UpcomingInvoiceResponse(InvoiceAmounts):
    """The next invoice, if nothing more were used; `projected`: if usage goes on as in the last seven days."""

    customer: str
    period: str
    period_start: str | None
    period_end: str | None
    currency: str
    closes_at: str | None
    projected: NotRequired[InvoiceAmounts]


class CreditNoteResponse(TypedDict):
    """What is taken back of an invoice."""

    id: str
    invoice: str
    amount: int
    why: str
    state: str
    created_at: NotRequired[str | None]
