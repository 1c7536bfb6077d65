"""What the endpoints of figures take and answer. Amounts are millicredits: a million are one US dollar."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import Printed, in_query
from edgeproxy.config.units import Whole

HOURS_MAX = 31 * 24


class ExecutiveQuery(Query):
    """Of which month, such as 2027-03; by default this one."""

    month: Printed | None = None
    """The calendar month in UTC, such as 2027-03; by default this month."""


class RefusalsQuery(Query):
    """Of how many hours."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The number of hours until now that the report covers."""


class BusinessDay(TypedDict):
    """A day of UTC."""

    day: str
    """The day in UTC, such as 2027-01-31."""
    usage: int
    """The revenue from usage, in millicredits."""
    fees: int
    """The revenue from fees, in millicredits."""
    revenue: int
    """The revenue of the day, in millicredits."""
    cost: int
    """The cost of the day's usage, in millicredits."""
    margin: float | None
    """The revenue for each unit of cost; null where there was no cost."""
    is_on_target: bool | None
    """Whether the margin reaches the target; null where there is no margin."""


class ModelUsage(TypedDict):
    """What the usage of a model cost."""

    model: str
    """The model."""
    meter: str
    """The meter."""
    quantity: int
    """The units used."""
    cost: int
    """The cost of this usage, in millicredits."""


class CustomerVolume(TypedDict):
    """What a customer used of a meter, and its share of all."""

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
        "models": Annotated[list[ModelUsage], Field(description="The models whose usage cost most.")],
        "customers": Annotated[list[CustomerVolume], Field(description="The customers with most usage of each meter.")],
    },
)


class BusinessMonth(TypedDict):
    """A month, as far as it has come."""

    month: str
    """The calendar month in UTC, such as 2027-03."""
    is_over: bool
    """Whether the month is over."""
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
    """The share of convertible customers who paid, from 0 to 1; null where there were none."""
    active: int
    """The number of customers who were active in the month."""
    active_before: int
    """The number of customers who were active in the month before."""
    lost: int | None
    """The number of those who are not active any more; null until the month is over."""
    churn: float | None
    """The share that was lost, from 0 to 1; null where it is not known."""
    lifetime_value: int | None
    """The revenue expected of a customer in all, in millicredits; null where it is not known."""


class BusinessReport(TypedDict):
    """How the business goes; `definitions` says what each figure means."""

    as_of: str
    """The time at which the figures were computed."""
    month: BusinessMonth
    """The figures of the month."""
    days: list[BusinessDay]
    """The figures of each day of the month so far."""
    week: BusinessWeek
    """The largest costs and customers of the last seven days."""
    target: float
    """The margin to be exceeded."""
    definitions: dict[str, str]
    """The meaning of each figure, in a sentence."""


class LimitRefusals(TypedDict):
    """What a limit refused, and how much of that while the edge did not know of all that counts."""

    limit: str
    """The name of the limit."""
    refused: int
    """The number of requests that the limit refused."""
    uncertain: int
    """The number of them refused while the edge did not know the counts of other edges."""


class CustomerRefusals(LimitRefusals):
    """What it refused of a customer."""

    customer: str
    """The customer, by name."""


class RefusalReport(TypedDict):
    """Who was refused most."""

    as_of: str
    """The time at which the figures were computed."""
    since: str
    """The beginning of the time that the report covers."""
    until: str
    """The end of the time that the report covers."""
    is_counted: bool
    """Whether a meter counts refusals (`count: refusals`); without one there are no figures."""
    refused: int
    """The number of requests refused."""
    uncertain: int
    """The number of them refused while the edge did not know the counts of other edges."""
    customers: list[CustomerRefusals]
    """The customers with most refusals, by limit."""
    limits: list[LimitRefusals]
    """The limits with most refusals."""
