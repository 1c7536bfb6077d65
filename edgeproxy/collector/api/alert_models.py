"""What the endpoints of alerts take and give."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.alerts.reports import PAGE_ALERTS_MAX
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import SEQ_MAX, Printed, in_query
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole


class AlertsQuery(Query):
    """Which alerts."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before."""
    customer: Printed | None = None
    kind: Printed | None = None
    severity: Literal["page", "warn", "info"] | None = None
    state: Literal["due", "sent", "dead"] | None = None
    """With a delivery that is still to be made, was made, or was given up; operators alone may ask."""


class AnomaliesQuery(Query):
    """Which findings."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before."""
    customer: Printed | None = None


class AnomalyList(TypedDict):
    """Days on which usage was not as usual, those found last first."""

    anomalies: list[dict[str, Any]]
    next: NotRequired[int]


class ReplayQuery(Query):
    """By which channel."""

    channel: Name | None = None
    """By default by all that have given it up."""


class AlertDelivery(TypedDict):
    """What became of an alert on its way to a channel."""

    channel: str
    state: str
    attempts: int
    error: str | None
    sent_at: str | None
    next_at: str | None


class AlertResponse(TypedDict):
    """An alert; `deliveries` are told to operators alone."""

    id: int
    key: str
    kind: str
    severity: str
    customer: str | None
    title: str
    details: dict[str, Any]
    at: str
    deliveries: NotRequired[list[AlertDelivery]]


class AlertList(TypedDict):
    """A page of alerts, the latest first."""

    alerts: list[AlertResponse]
    next: NotRequired[int]
