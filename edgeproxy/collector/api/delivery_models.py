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
    before: Annotated[int | None, BeforeValidator(Whole(0, MILLISECONDS_MAX)), in_query(0, MILLISECONDS_MAX)] = None
    """Those received before this Unix millisecond."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX


class ReconciliationQuery(Query):
    """Which reconciliations."""

    kind: ReconciliationKind | None = None
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = 30


class ReportQuery(Query):
    """Which invoices."""

    period: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    """The day on which the period begins; by default all."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX


class UpdateRolloutRequest(BaseModel):
    """How the roll-out goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: Annotated[int, exact(int, "a whole number from 0 to 100", 0, 100)] | None = None
    """How many percent of customers are charged under `mode: live`."""
    force: Why | None = None
    """Why it goes on with gates that are closed."""
    charging: Boolean | None = None
    """False: nobody is charged from now on; true: customers are again."""
    message: Message | None = None
    """What customers are told while nobody is charged."""
    why: Why
    """For the audit log."""


class WebhookEvent(TypedDict):
    """An event of Stripe's."""

    id: str
    type: str
    object: str
    state: str
    source: str
    attempts: int
    error: str | None
    livemode: bool
    created: str
    received: str
    applied: str | None


class WebhookEventList(TypedDict):
    """Events of Stripe's, and how many there are in each state."""

    events: list[WebhookEvent]
    states: dict[str, int]


class WebhookReceipt(TypedDict):
    """An event that is kept."""

    received: str


class WebhookReplayResult(TypedDict):
    """An event that is applied once more."""

    event: str
    state: str


class DriftRow(TypedDict):
    """A number in both books."""

    customer: str
    meter: str
    ours: int
    theirs: int
    do: str


class Reconciliation(TypedDict):
    """What was held against what."""

    id: str
    kind: str
    about: str
    since: str
    until: str
    at: str
    compared: int
    units: int
    different: int
    ratio: float
    meters: dict[str, float]
    """The ratio of each meter."""
    cents: int | None
    """What the units cost, about; null where they are money themselves."""
    cents_different: int | None
    level: str
    rows: list[DriftRow]


class ReconciliationList(TypedDict):
    """Reconciliations, the latest first."""

    reconciliations: list[Reconciliation]


class RatedCustomer(TypedDict):
    """An invoice of a period, in cents without tax."""

    invoice: str
    customer: str
    period: str
    state: str
    shadow: int
    """By one rating of all usage."""
    real: int | None
    """What was charged; null where nothing was, or not yet."""
    at: str


class RatingReport(TypedDict):
    """What shadow rated beside what was charged, in cents."""

    rated: int
    """Invoices."""
    shadow: int
    charged: int
    """Those of them that were charged."""
    shadow_of_charged: int
    real: int
    different: int
    """Those that were charged by another amount."""
    invoices: list[RatedCustomer]
    """Those that differ first, then the largest."""


class RolloutGate(TypedDict):
    """A condition of a step."""

    name: str
    wanted: str
    figure: str
    is_open: bool


class Rollout(TypedDict):
    """Who is charged now."""

    mode: str
    percent: int
    allow: list[str]
    charging: bool
    message: str | None
    stopped_by: str | None
    gates: list[RolloutGate]


class Waiver(TypedDict):
    """A time in which nothing was charged; without an end while it lasts."""

    since: str
    until: str | None
    who: str
    why: str


class RolloutRequirements(Rollout):
    """Who is charged now, and in the past; the gates are those of the next step up, none where there is none."""

    gates_as_of: str | None
    """When these figures were asked for; null while they are worked out, and no gate is told then."""
    stage: str
    since: str | None
    """Since when so many percent are charged; null where nobody has said so at run time."""
    is_stopped_by_file: bool
    """Whether the collector's file stops charging, so that it can only be resumed there."""
    waivers: list[Waiver]
    """The latest first."""
