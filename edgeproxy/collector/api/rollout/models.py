"""The roll-out of billing as the API shows it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.field_types import Boolean, exact
from edgeproxy.collector.billing.rollout.gates import Mode, Stage

Why = Annotated[str, Field(min_length=1, max_length=500)]
Message = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x20-\x7e]+$")]


class UpdateRolloutRequest(BaseModel):
    """A change of the roll-out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: Annotated[int, exact(int, "a whole number from 0 to 100", 0, 100)] | None = None
    """The share of customers that is charged under `mode: live`, in percent."""
    force: Why | None = None
    """The reason for a step up despite closed gates."""
    charging: Boolean | None = None
    """False stops all charging from now on; true resumes it."""
    message: Message | None = None
    """The message for customers while charging is stopped."""
    why: Why
    """The reason, for the audit log."""


class RolloutGate(TypedDict):
    """A condition of a step."""

    name: str
    """The name of the gate."""
    required: str
    """The condition that opens the gate."""
    figure: str
    """The current figure."""
    is_open: bool
    """True if the condition is met."""


class Rollout(TypedDict):
    """The status of the roll-out: the customers that are charged now."""

    mode: Mode
    """`off`, `shadow` or `live`, as in the collector's file."""
    percent: int
    """The share of customers that is charged, in percent; 0 under `mode: shadow`."""
    file_percent: int
    """The upper bound of that share, from the collector's file."""
    allow: list[str]
    """The customers that are charged at any percentage, by name."""
    charging: bool
    """True if any customer is charged now."""
    message: str | None
    """The message for customers while charging is stopped; null otherwise."""
    stopped_by: str | None
    """The token or operator that stopped charging; null if charging is on."""
    gates: list[RolloutGate]
    """The gates of the next step up."""


class Waiver(TypedDict):
    """A time without charges. Its end is missing while it lasts."""

    since: str
    """The start of the time without charges."""
    until: str | None
    """The end of the time without charges; null while it lasts."""
    who: str
    """The token or operator that stopped charging."""
    why: str
    """The reason."""


class RolloutRequirements(Rollout):
    """The current and past roll-out, and the gates of the next step up. There are no gates if there is no such step."""

    gates_as_of: str | None
    """The time of the gates' figures; null while they are computed. No gates are listed then."""
    stage: Stage
    """`shadow`, `few` or `many`. The stage decides which gates there are."""
    since: str | None
    """The time since which this percentage is charged; null if none was set at run time."""
    is_stopped_by_file: bool
    """True if the collector's file stops charging. Then only a change of the file resumes it."""
    waivers: list[Waiver]
    """The times without charges, latest first."""
