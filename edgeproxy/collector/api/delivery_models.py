"""What is sent to the endpoints of delivery, and what they answer."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import Boolean, exact, in_query
from edgeproxy.collector.billing.mismatch import ReconciliationKind
from edgeproxy.collector.billing.webhooks.receiver import LISTED_MAX
from edgeproxy.config.units import Whole

MILLISECONDS_MAX = 10**15

Why = Annotated[str, Field(min_length=1, max_length=500)]
Message = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]


class WebhooksQuery(Query):
    """Which events."""

    state: Literal["waiting", "applied", "ignored", "other_mode", "dead"] | None = None
    """Only events in this state."""
    before: Annotated[int | None, BeforeValidator(Whole(0, MILLISECONDS_MAX)), in_query(0, MILLISECONDS_MAX)] = None
    """Only events received before this time, in Unix milliseconds."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX
    """The number of events, at most."""


class ReconciliationQuery(Query):
    """Which reconciliations."""

    kind: ReconciliationKind | None = None
    """Only reconciliations of this kind, that is of these two books."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = 30
    """The number of reconciliations, at most."""


class ReportQuery(Query):
    """Which invoices."""

    period: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    """The first day of the period in UTC, such as 2027-03-01; by default all periods."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX
    """The number of invoices, at most."""


class UpdateRolloutRequest(BaseModel):
    """How the roll-out goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: Annotated[int, exact(int, "a whole number from 0 to 100", 0, 100)] | None = None
    """The share of customers that is charged under `mode: live`, in percent."""
    force: Why | None = None
    """The reason for a step up although gates are closed."""
    charging: Boolean | None = None
    """False stops all charging from now on; true resumes it."""
    message: Message | None = None
    """The message for customers while charging is stopped."""
    why: Why
    """The reason, for the audit log."""


class WebhookEvent(TypedDict):
    """An event of Stripe's."""

    id: str
    """The id of the event at Stripe."""
    type: str
    """The type of the event, such as `invoice.paid`."""
    object: str
    """The id of the object that the event is about."""
    state: str
    """`waiting`, `applied`, `ignored`, `other_mode` or `dead`."""
    source: str
    """The way by which the event came."""
    attempts: int
    """The number of attempts to apply the event."""
    error: str | None
    """The error of the last attempt; null where there was none."""
    livemode: bool
    """Whether the event is of Stripe's live mode."""
    created: str
    """The time at which Stripe created the event."""
    received: str
    """The time at which the collector received the event."""
    applied: str | None
    """The time at which the event was applied; null until then."""


class WebhookEventList(TypedDict):
    """Events of Stripe's, and how many there are in each state."""

    events: list[WebhookEvent]
    """The events, latest first."""
    states: dict[str, int]
    """The number of events in each state."""


class WebhookReceipt(TypedDict):
    """An event that is kept."""

    received: str
    """The id of the event that was stored."""


class WebhookReplayResult(TypedDict):
    """An event that is applied once more."""

    event: str
    """The id of the event."""
    state: str
    """The state of the event: `waiting` to be applied again."""


class DriftRow(TypedDict):
    """A number in both books."""

    customer: str
    """The customer, by name."""
    meter: str
    """The meter."""
    ours: int
    """The number in the collector's book."""
    theirs: int
    """The number in the book that it is compared with."""
    action: str
    """Advice for the operator."""


class Reconciliation(TypedDict):
    """What was held against what."""

    id: str
    """The id of the reconciliation."""
    kind: str
    """The kind, from `A` to `E`: it says which two books are compared."""
    about: str
    """The two books in words."""
    since: str
    """The beginning of the time that is compared."""
    until: str
    """The end of the time that is compared."""
    at: str
    """The time of the reconciliation."""
    compared: int
    """The number of rows compared."""
    units: int
    """The units compared, or cents in kinds that compare money."""
    different: int
    """The units or cents that differ."""
    ratio: float
    """The share of the units that differs, from 0 to 1."""
    meters: dict[str, float]
    """The share that differs for each meter, from 0 to 1."""
    cents: int | None
    """The approximate price of the units in cents; null where they are money themselves."""
    cents_different: int | None
    """The approximate price of the units that differ, in cents; null where they are money themselves."""
    level: str
    """The severity: `none`, `warn` or `page`."""
    rows: list[DriftRow]
    """The rows that differ."""


class ReconciliationList(TypedDict):
    """Reconciliations, the latest first."""

    reconciliations: list[Reconciliation]
    """The reconciliations, latest first."""


class RatedCustomer(TypedDict):
    """An invoice of a period, in cents without tax."""

    invoice: str
    """The id of the invoice."""
    customer: str
    """The customer, by name."""
    period: str
    """The first day of the period in UTC, such as 2027-03-01."""
    state: str
    """The state of the invoice."""
    shadow: int
    """The amount by one rating of all usage, in cents."""
    real: int | None
    """The amount that was charged, in cents; null where nothing was charged yet."""
    at: str
    """The time of the rating."""


class RatingReport(TypedDict):
    """What shadow rated beside what was charged, in cents."""

    rated: int
    """The number of invoices rated."""
    shadow: int
    """The sum of their shadow amounts, in cents."""
    charged: int
    """The number of them that were charged."""
    shadow_of_charged: int
    """The sum of the shadow amounts of those that were charged, in cents."""
    real: int
    """The sum that was charged, in cents."""
    different: int
    """The number of invoices that were charged with another amount."""
    invoices: list[RatedCustomer]
    """The invoices: those that differ first, then the largest."""


class RolloutGate(TypedDict):
    """A condition of a step."""

    name: str
    """The name of the gate."""
    required: str
    """The condition under which the gate is open."""
    figure: str
    """The figure that is measured now."""
    is_open: bool
    """Whether the condition is met."""


class Rollout(TypedDict):
    """Who is charged now."""

    mode: str
    """`off`, `shadow` or `live`, as in the collector's file."""
    percent: int
    """The share of customers that is charged, in percent."""
    allow: list[str]
    """The customers that are charged whatever the percentage, by name."""
    charging: bool
    """Whether anyone is charged now."""
    message: str | None
    """The message for customers while charging is stopped; null otherwise."""
    stopped_by: str | None
    """The token or operator that stopped charging; null where it is not stopped."""
    gates: list[RolloutGate]
    """The gates of the next step up."""


class Waiver(TypedDict):
    """A time in which nothing was charged; without an end while it lasts."""

    since: str
    """The time from which nothing was charged."""
    until: str | None
    """The time until which nothing was charged; null while it lasts."""
    who: str
    """The token or operator that stopped charging."""
    why: str
    """The reason."""


class RolloutRequirements(Rollout):
    """Who is charged now, and in the past; the gates are those of the next step up, none where there is none."""

    gates_as_of: str | None
    """The time of the gates' figures; null while they are computed, when no gates are listed."""
    stage: str
    """`shadow`, `few` or `many`: it decides which gates there are."""
    since: str | None
    """The time since which this percentage is charged; null where none was set at run time."""
    is_stopped_by_file: bool
    """Whether the collector's file stops charging: then it can only be resumed there."""
    waivers: list[Waiver]
    """The times in which nothing was charged, latest first."""
