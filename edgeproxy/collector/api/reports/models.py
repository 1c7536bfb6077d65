"""Reconciliation, the books and the business as the API shows them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Printed, in_query
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceState
from edgeproxy.collector.billing.journal.postings import Account, TransactionKind
from edgeproxy.collector.billing.mismatch import Level, ReconciliationKind
from edgeproxy.collector.billing.webhooks.receiver import LISTED_MAX
from edgeproxy.config.collector.currency_units import USD, Currency
from edgeproxy.config.units import Whole


class ReconciliationQuery(Query):
    """Filters of reconciliations."""

    kind: ReconciliationKind | None = None
    """Only reconciliations of this kind. A kind compares two books."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = 30
    """The number of reconciliations, at most."""


class RatingReportQuery(Query):
    """Filters of invoices."""

    period: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    """The first day of the period in UTC, for example 2027-03-01; by default all periods."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX
    """The number of invoices, at most."""


class DriftRow(TypedDict):
    """A number that both books have."""

    customer: str
    """The customer, by name."""
    meter: str
    """The meter."""
    ours: int
    """The number in the collector's book."""
    theirs: int
    """The number in the other book."""
    action: str
    """Advice for the operator."""


class Reconciliation(TypedDict):
    """A comparison of two books."""

    id: str
    """The id of the reconciliation."""
    kind: ReconciliationKind
    """The kind, from `A` to `E`. It decides which two books are compared."""
    about: str
    """The names of the two books."""
    since: str
    """The start of the compared time."""
    until: str
    """The end of the compared time."""
    at: str
    """The time of the reconciliation."""
    compared: int
    """The number of rows compared."""
    units: int
    """The compared units; for kinds that compare money, cents."""
    different: int
    """The units or cents that differ."""
    ratio: float
    """The share of the units that differs, from 0 to 1."""
    meters: dict[str, float]
    """The share that differs for each meter, from 0 to 1."""
    cents: int | None
    """The approximate price of the units in cents; null if the units are money."""
    cents_different: int | None
    """The approximate price of the differing units, in cents; null if the units are money."""
    level: Level
    """The severity: `none`, `warn` or `page`."""
    rows: list[DriftRow]
    """The rows that differ."""


class ReconciliationList(TypedDict):
    """Reconciliations, latest first."""

    reconciliations: list[Reconciliation]
    """The reconciliations, latest first."""


class RatedCustomer(TypedDict):
    """An invoice of a period, in cents without tax."""

    invoice: str
    """The id of the invoice."""
    customer: str
    """The customer, by name."""
    period: str
    """The first day of the period in UTC, for example 2027-03-01."""
    state: InvoiceState
    """The state of the invoice."""
    currency: str
    """The currency of the amounts (ISO 4217), for example `usd`."""
    shadow: int
    """The amount from rating all usage at once, in the smallest unit of the currency."""
    real: int | None
    """The amount charged, in that unit; null if nothing was charged yet."""
    at: str
    """The time of the rating."""


class RatedTotals(TypedDict):
    """The invoices in a currency. Amounts are in its smallest unit, for example cents."""

    currency: str
    """The currency (ISO 4217), for example `usd`."""
    rated: int
    """The number of invoices rated."""
    shadow: int
    """The sum of their shadow amounts."""
    charged: int
    """The number of rated invoices that were charged."""
    shadow_of_charged: int
    """The sum of the shadow amounts of the charged invoices."""
    real: int
    """The sum of the charged amounts."""
    different: int
    """The number of invoices whose charged amount differs."""


class RatingReport(TypedDict):
    """The amounts rated in shadow mode, and the amounts charged."""

    totals: list[RatedTotals]
    """The sums of all invoices, in each currency."""
    invoices: list[RatedCustomer]
    """The invoices: first the differing ones, then the largest."""


class BusinessReportQuery(Query):
    """The month of the report, for example 2027-03; by default the current one."""

    month: Printed | None = None
    """The calendar month in UTC, for example 2027-03; by default this month."""
    currency: Currency | None = None
    """The currency of the report and of its customers' charges; by default the currency of the plans."""


class BusinessDay(TypedDict):
    """A day (UTC). Amounts are millicredits, or ten-thousandths of the smallest unit of another currency."""

    day: str
    """The day in UTC, for example 2027-01-31."""
    usage: int
    """The revenue from usage, in millicredits."""
    fees: int
    """The revenue from fees, in millicredits."""
    revenue: int
    """The revenue of the day, in millicredits."""
    cost: int
    """The cost of the day's usage, in millicredits."""
    margin: float | None
    """The revenue for each unit of cost; null if there was no cost."""
    is_on_target: bool | None
    """True if the margin is above the target; null if there is no margin."""


class ModelUsage(TypedDict):
    """The usage of a model and its cost."""

    model: str
    """The model."""
    meter: str
    """The meter."""
    quantity: int
    """The units used."""
    cost: int
    """The cost of this usage, in millicredits."""


class CustomerVolume(TypedDict):
    """The usage of a meter by a customer, and its share of all usage."""

    meter: str
    """The meter."""
    customer: str
    """The customer, by name."""
    quantity: int
    """The units that the customer used."""
    share: float
    """The share of all usage of the meter, from 0 to 1."""


BusinessWeek = TypedDict(
    "BusinessWeek",
    {
        "from": Annotated[str, Field(description="The first day of the week in UTC.")],
        "to": Annotated[str, Field(description="The last day of the week in UTC.")],
        "cost": Annotated[int, Field(description="The cost of the week's usage, in millicredits.")],
        "models": Annotated[list[ModelUsage], Field(description="The models with the highest cost.")],
        "customers": Annotated[
            list[CustomerVolume], Field(description="The customers with the most usage of each meter.")
        ],
    },
)


class BusinessMonth(TypedDict):
    """The figures of a month so far."""

    month: str
    """The calendar month in UTC, for example 2027-03."""
    is_over: bool
    """True if the month is over."""
    revenue: int
    """The revenue, in millicredits."""
    cost: int
    """The cost of the usage, in millicredits."""
    liability: int
    """The credits that customers hold at the end of the month, in millicredits."""
    fees_ahead: int
    """The fees invoiced for days after the month, in millicredits."""
    converted: int
    """The number of customers who paid for the first time."""
    convertible: int
    """The number of customers who had never paid before."""
    conversion: float | None
    """The share of convertible customers who paid, from 0 to 1; null if there were none."""
    active: int
    """The number of customers who were active in the month."""
    active_before: int
    """The number of customers who were active in the month before."""
    lost: int | None
    """The number of customers active in the month before who are not active any more; null until the month is over."""
    churn: float | None
    """The share of customers lost, from 0 to 1; null if it is not known."""
    lifetime_value: int | None
    """The expected total revenue from a customer, in millicredits; null if it is not known."""
    revenue_before: int
    """The revenue of the month before, in millicredits."""
    growth: float | None
    """The growth of revenue over the month before, as a ratio: 0.1 is 10 %. Null until the month is over."""
    checkouts: int
    """The number of credit purchases started at Checkout."""
    purchases: int
    """The number of credit purchases that were paid."""
    purchased: int
    """The credits bought, in millicredits."""
    conversion_rate: float | None
    """The share of started purchases that were paid, from 0 to 1; null if none was started."""
    mean_purchase: int | None
    """The credits of an average purchase, in millicredits; null if there was none."""


class PlanSubscribersResponse(TypedDict):
    """The subscribers of a plan at the end of the month, or now."""

    plan: str
    """The name of the plan, for example `standard`."""
    subscribers: int
    """The number of customers who have it, without those in a trial."""
    trials: int
    """The number of customers who have it in a trial."""
    quantity: int
    """The sum of the subscribers' quantities, for example seats."""
    mrr: int
    """Their monthly fees, in millicredits."""


class RecurringRevenueResponse(TypedDict):
    """The monthly recurring revenue (MRR), and its change in the month. Amounts are millicredits."""

    mrr: int
    """The monthly fees of all subscriptions at the end of the month, or now; a twelfth of yearly ones, none in trials.
    """
    before: int
    """The same at the start: with `new` and `expansion`, less `contraction` and `churned`, it equals `mrr`."""
    new: int
    """The monthly fees of customers who had none at the start."""
    expansion: int
    """The increase of the customers who pay more than at the start."""
    contraction: int
    """The decrease of the customers who pay less, but still something."""
    churned: int
    """The monthly fees at the start of customers who have none any more."""
    plans: list[PlanSubscribersResponse]
    """The plans by their recurring revenue, largest first."""


class BusinessReport(TypedDict):
    """The business figures in one currency. `definitions` explains each figure.

    Amounts are millicredits (a million are one US dollar); in other currencies, ten-thousandths of the smallest unit.
    """

    as_of: str
    """The time when the figures were computed."""
    currency: str
    """The currency of the report (ISO 4217), for example `usd`."""
    currencies: list[str]
    """The currencies of customers' charges. Each has its own report."""
    month: BusinessMonth
    """The figures of the month."""
    recurring: RecurringRevenueResponse
    """The monthly recurring revenue."""
    days: list[BusinessDay]
    """The figures of each day of the month so far."""
    week: BusinessWeek
    """The largest costs and customers of the last seven days."""
    target: float
    """The target: the margin that a day should exceed."""
    definitions: dict[str, str]
    """The meaning of each figure, in one sentence."""


class AccountingQuery(Query):
    """The format of the accounting export."""

    format: Literal["csv", "quickbooks", "xero"] | None = None
    """The format of a CSV file; by default the answer is JSON."""
    currency: Currency = USD
    """The currency of the books, for example `eur`; by default US dollars."""


class AccountMovement(TypedDict):
    """The movement of an account by one kind of booking. A debit is positive, a credit negative."""

    account: Account
    """The account of the books."""
    kind: TransactionKind
    """The kind of the booking."""
    customer: str
    """The customer, by name."""
    millicredits: int
    """The movement in ten-thousandths of the smallest unit, for example of a cent. Debits are positive."""


class AccountingDay(TypedDict):
    """A day of the books: exact movements, and whole cents by account."""

    date: str
    """The day in UTC, for example 2027-01-31."""
    currency: str
    """The currency of the books. Each currency has its own books."""
    movements: list[AccountMovement]
    """The exact movements of the day, by account, kind and customer."""
    cents: dict[str, int]
    """The whole cents, or other smallest units, of the day by account."""
