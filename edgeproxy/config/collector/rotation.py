"""Rotation of keys that are due: `rotation` in collector.yaml."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault
from edgeproxy.config.tree import Table
from edgeproxy.config.units import DAY_SECONDS, TIME_PATTERN, Time, format_seconds, value_error

OVERLAP_SECONDS = 7 * DAY_SECONDS
"""The overlap of a rotation where neither the request nor the file says."""
REMINDERS_MAX = 5
read_reminder = Time(3600.0, 365 * DAY_SECONDS)


@written(
    {"type": "array", "items": build_text("time", TIME_PATTERN, "7day"), "maxItems": REMINDERS_MAX},
    lambda times: [format_seconds(seconds) for seconds in times],
)
def read_reminders(value: object) -> tuple[float, ...]:
    """Read times in seconds, each longer than the one before."""
    hint = f"at most {REMINDERS_MAX} times that grow, such as [7d, 30d]"
    if not isinstance(value, list | tuple) or len(value) > REMINDERS_MAX:
        raise value_error("is no list of times", hint)
    times = tuple(read_reminder(one) for one in value)
    if any(one >= other for one, other in pairwise(times)):
        raise value_error("does not grow", hint)
    return times


class Rotation(Part):
    """[Rotation of keys](accounts.md#keys-that-are-due) whose customers have `rotate_every`."""

    deliver: Literal["portal"] = Field(
        description="Way in which a customer gets the key that replaces one that is due. `portal`: a contact makes it "
        "at `/account/keys`, which shows it once. No mail and no file has it."
    )
    overlap: Annotated[float, BeforeValidator(Time(3600.0, 90 * DAY_SECONDS))] = Field(
        default=OVERLAP_SECONDS,
        description="Time for which a key works on beside the one that replaces it, where a request does not say.",
    )
    remind: Annotated[tuple[float, ...], BeforeValidator(read_reminders)] = Field(
        default=(7 * DAY_SECONDS, 30 * DAY_SECONDS),
        description="Rising times after which customer and operators are alerted again of a key that is still due.",
    )


def find_rotation_faults(tree: Table) -> Iterator[Fault]:
    """Find a delivery of keys that has no way, in a collector.yaml."""
    rotation = tree.get("rotation")
    if isinstance(rotation, Table) and rotation.get("deliver") == "portal" and "pages" not in tree:
        yield Fault(("rotation", "deliver"), "needs the portal, and there are no pages", "write pages: {}")
