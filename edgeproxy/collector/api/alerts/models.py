"""Alerts and anomalies in the API's form."""

from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, JsonValue
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.alert_handling import AlertHandling
from edgeproxy.collector.accounts.fields import End, Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.alerts.deliveries import DeliveryState
from edgeproxy.collector.alerts.kinds import AlertKind, Severity
from edgeproxy.collector.alerts.reports import PAGE_ALERTS_MAX
from edgeproxy.collector.anomalies.judgement import Kind as FindingKind
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import SEQ_MAX, Printed, Truth, in_query
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole


class AlertsQuery(Query):
    """Filters of alerts, and the page."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    """The number of alerts on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""
    customer: Printed | None = None
    """Only alerts of this customer, by name. A customer's own token lists only its own alerts."""
    kind: Printed | None = None
    """Only alerts of this kind, such as `quota_reached`."""
    severity: Severity | None = None
    """Only alerts of this severity."""
    acknowledged: Truth | None = None
    """True: only alerts that your side (operators or the customer) has acknowledged. False: only alerts that still wait
    for an acknowledgement; alerts of severity `info` never do.
    """
    order: Literal["newest", "oldest"] = "newest"
    """`newest` goes back from the latest alert, or from `cursor`; `oldest` starts with the oldest one."""
    state: Literal["due", "sent", "dead"] | None = None
    """Only alerts with a delivery in this state: `due` waits to be sent, `dead` was given up. For operators only."""


class AnomaliesQuery(Query):
    """Filters of anomalies, and the page."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    """The number of anomalies on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""
    customer: Printed | None = None
    """Only anomalies of this customer, by name."""


class Anomaly(TypedDict):
    """A day of unusual usage by a customer."""

    id: int
    """The number of the finding; later findings have larger ones."""
    customer: str
    """The customer, by name."""
    meter: str
    """The meter."""
    day: str
    """The day in UTC, such as 2027-01-31."""
    severity: Severity
    """`page`, `warn` or `info`."""
    kind: FindingKind
    """`volume` for much more or less usage than usual, `pattern` for usage at unusual hours, `both` for both."""
    value: int
    """The units used in the judged hour or day."""
    expected: int
    """The units expected in that time."""
    score: float
    """The distance from the expected value, in deviations of the usual usage."""
    likeness: float | None
    """How similar the hours of the day are to the usual ones, from 0 to 1; null if the volume was judged."""
    action: str
    """Advice for the operator."""
    detected_at: str
    """The time when the anomaly was found."""
    expires_at: str
    """The time when the finding is deleted."""


class AnomalyList(TypedDict):
    """A page of days with unusual usage, latest finding first."""

    anomalies: list[Anomaly]
    """The findings of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


class ReplayQuery(Query):
    """The channel of a replay."""

    channel: Name | None = None
    """The channel that sends the alert again, by name; by default all channels that gave it up."""


class AlertDeliveryResponse(TypedDict):
    """The delivery of an alert to a channel."""

    channel: str
    """The name of the channel in the collector's file."""
    state: DeliveryState
    """`due` waits to be sent, `sent` was delivered, `dead` was given up."""
    attempts: int
    """The number of attempts so far."""
    error: str | None
    """The error of the last attempt; null if it succeeded, or if there was no attempt yet."""
    sent_at: str | None
    """The time of the delivery; null until then."""
    next_at: str | None
    """The time of the next attempt; null if none is due."""


class AlertResponse(TypedDict):
    """An alert. Only operators see `deliveries`."""

    id: int
    """The number of the alert; later alerts have larger ones."""
    key: str
    """The identity of the alert's cause. Each key raises one alert only."""
    kind: AlertKind
    """The kind of the alert, such as `quota_reached` or `key_rotation_due`."""
    severity: Severity
    """`page`, `warn` or `info`."""
    customer: str | None
    """The customer that the alert is about, by name; null if it is about no customer."""
    title: str
    """One sentence for a person."""
    details: dict[str, JsonValue]
    """The facts behind the alert. Its kind decides which fields there are."""
    at: str
    """The time when the alert was raised."""
    handling: AlertHandling
    """The handling of the alert by operators; for a customer's own token, the handling by the customer."""
    deliveries: NotRequired[list[AlertDeliveryResponse]]
    """The delivery of the alert through each channel; for operators only."""


class AcknowledgeAlertRequest(Body):
    """The note of the person who acknowledges an alert."""

    why: Text | None = None
    """A note about the cause or the handling, for others who see the alert."""


class AssignAlertRequest(Body):
    """The person who looks after an alert."""

    to: Text | None
    """The name or address of the person; null removes the assignment."""


class MuteAlertRequest(Body):
    """The end of the mute, and its reason."""

    until: End
    """The end of the mute, at most 90 days from now; for operators at most 2 days if the kind can page them. A time in
    the past ends the mute at once.
    """
    why: Text
    """The reason, for the audit log."""


class AlertList(TypedDict):
    """A page of alerts, the latest first."""

    alerts: list[AlertResponse]
    """The alerts of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""
