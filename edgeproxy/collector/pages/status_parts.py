"""The parts of the service on the status page, that is, regions and components, with their states. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.pages.availability import RegionAvailability
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.maintenance import Maintenance

PartState = Literal["operational", "degraded", "partial_outage", "major_outage", "maintenance", "unknown"]
INCIDENT_PART_STATES: Mapping[str, PartState] = {"P0": "major_outage", "P1": "partial_outage", "P2": "degraded"}
"""The state of a part by its worst ongoing incident. Minor incidents (P3) do not change the state."""


class StatusPart(NamedTuple):
    """A region or a component."""

    name: str
    state: PartState
    failing_since: str | None
    """The time since when it has not answered, as RFC 3339; None: it answers, or the time is unknown."""


def list_parts(
    measured: Sequence[RegionAvailability], incidents: Sequence[Incident], maintenance: Sequence[Maintenance]
) -> list[StatusPart]:
    """Return the state of each part, from measurements and operators' reports."""
    return [
        StatusPart(
            one.name,
            compute_part_state(one.name, one.is_well, incidents, maintenance),
            None if one.failing_since is None else format_timestamp(round(one.failing_since * 1000)),
        )
        for one in measured
    ]


def compute_part_state(
    name: str, is_well: bool | None, incidents: Sequence[Incident], maintenance: Sequence[Maintenance]
) -> PartState:
    """Return the state of a part. A failed check means an outage, unless maintenance is in progress there."""
    is_planned = any(window["state"] == "in_progress" and _affects(window, name) for window in maintenance)
    if is_well is False and not is_planned:
        return "major_outage"
    there = (
        incident["severity"] for incident in incidents if incident["ended_at"] is None and _affects(incident, name)
    )
    worst = min((severity for severity in there if severity in INCIDENT_PART_STATES), default=None)
    if worst is not None:
        return INCIDENT_PART_STATES[worst]
    if is_planned:
        return "maintenance"
    return "unknown" if is_well is None else "operational"


def _affects(one: Incident | Maintenance, name: str) -> bool:
    """Return True if a part is affected. No regions means that all parts are affected."""
    return not one["regions"] or name in one["regions"]
