"""What the endpoints of figures take and answer. Amounts are millicredits: a million are one US dollar."""

from typing import Annotated

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import Printed, in_query
from edgeproxy.config.units import Whole

HOURS_MAX = 31 * 24


class ExecutiveQuery(Query):
    """Of which month, such as 2027-03; by default this one."""

    month: Printed | None = None


class RefusalsQuery(Query):
    """Of how many hours."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24


class BusinessDay(TypedDict):
    """A day of UTC."""

    day: str
    usage: int
    fees: int
    revenue: int
    cost: int
    margin: float | None
    is_on_target: bool | None


class ModelUsage(TypedDict):
    """What the usage of a model cost."""

    model: str
    meter: str
    quantity: int
    cost: int


class CustomerVolume(TypedDict):
    """What a customer used of a meter, and its share of all."""

    meter: str
    customer: str
    quantity: int
    share: float


BusinessWeek = TypedDict(
    "BusinessWeek", {"from": str, "to": str, "cost": int, "models": list[ModelUsage], "customers": list[CustomerVolume]}
)


class BusinessMonth(TypedDict):
    """A month, as far as it has come."""

    month: str
    is_over: bool
    revenue: int
    cost: int
    liability: int
    fees_ahead: int
    converted: int
    convertible: int
    conversion: float | None
    active: int
    active_before: int
    lost: int | None
    churn: float | None
    lifetime_value: int | None


class BusinessReport(TypedDict):
    """How the business goes; `definitions` says what each figure means."""

    as_of: str
    month: BusinessMonth
    days: list[BusinessDay]
    week: BusinessWeek
    target: float
    definitions: dict[str, str]


class LimitRefusals(TypedDict):
    """What a limit refused, and how much of that while the edge did not know of all that counts."""

    limit: str
    refused: int
    uncertain: int


class CustomerRefusals(LimitRefusals):
    """What it refused of a customer."""

    customer: str


class RefusalReport(TypedDict):
    """Who was refused most."""

    as_of: str
    since: str
    until: str
    is_counted: bool
    """Whether a meter has `count: refusals`."""
    refused: int
    uncertain: int
    customers: list[CustomerRefusals]
    limits: list[LimitRefusals]
