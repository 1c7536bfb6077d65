"""Alerts and anomalies as the API shows them."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.alerts.reports import PAGE_ALERTS_MAX
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import SEQ_MAX, Printed, in_query
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole


class AlertsQuery(Query):
    """Which alerts."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    """The number of alerts on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""
    customer: Printed | None = None
    """Only alerts of this customer, by name. A customer's own token lists its own alone."""
    kind: Printed | None = None
    """Only alerts of this kind, such as `quota_reached`."""
    severity: Literal["page", "warn", "info"] | None = None
    """Only alerts of this severity."""
    state: Literal["due", "sent", "dead"] | None = None
    """Only alerts with a delivery in this state: `due` is still to be sent, `dead` was given up. For operators
    alone."""


class AnomaliesQuery(Query):
    """Which findings."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    """The number of anomalies on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""
    customer: Printed | None = None
    """Only anomalies of this customer, by name."""


class AnomalyList(TypedDict):
    """Days on which usage was not as usual, those found last first."""

    anomalies: list[dict[str, Any]]
    """Each with its `id`, `customer`, `meter`, `day` (UTC), `severity`, `kind`, `found_at`, `expires_at`, and the
    numbers by which it was judged."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


class ReplayQuery(Query):
    """By which channel."""

    channel: Name | None = None
    """The channel that sends the alert again, by name; by default all that have given it up."""


class AlertDelivery(TypedDict):
    """What became of an alert on its way to a channel."""

    channel: str
    """The name of the channel in the collector's file."""
    state: str
    """`due` is still to be sent, `sent` was delivered, `dead` was given up."""
    attempts: int
    """The number of attempts so far."""
    error: str | None
    """The error of the last attempt; null where it succeeded, or there was none yet."""
    sent_at: str | None
    """The time of the delivery; null until then."""
    next_at: str | None
    """The time of the next attempt; null where none is due."""


class AlertResponse(TypedDict):
    """An alert; `deliveries` are told to operators alone."""

    id: int
    """The number of the alert; later alerts have larger ones."""
    key: str
    """The identity of what the alert is about: it is raised once for each key."""
    kind: str
    """The kind of the alert, such as `quota_reached` or `key_rotation_due`."""
    severity: str
    """`page`, `warn` or `info`."""
    customer: str | None
    """The customer that the alert is about, by name; null where it is about none."""
    title: str
    """One sentence for a person."""
    details: dict[str, Any]
    """The facts behind the alert; which fields there are depends on its kind."""
    at: str
    """The time at which the alert was raised."""
    deliveries: NotRequired[list[AlertDelivery]]
    """The delivery of the alert by each channel; for operators alone."""


class AlertList(TypedDict):
    """A page of alerts, the latest first."""

    alerts: list[AlertResponse]
    """The alerts of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""
