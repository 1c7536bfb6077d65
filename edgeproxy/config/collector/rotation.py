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

GRACE_SECONDS = 7 * DAY_SECONDS
"""The default overlap of a rotation, if neither the request nor the file sets it."""
REMINDERS_MAX = 5
read_reminder = Time(3600.0, 365 * DAY_SECONDS)


@written(
    {"type": "array", "items": build_text("time", TIME_PATTERN, "7day"), "maxItems": REMINDERS_MAX},
    lambda times: [format_seconds(seconds) for seconds in times],
)
def read_reminders(value: object) -> tuple[float, ...]:
    """Read increasing times in seconds."""
    hint = f"at most {REMINDERS_MAX} times that grow, such as [7d, 30d]"
    if not isinstance(value, list | tuple) or len(value) > REMINDERS_MAX:
        raise value_error("is no list of times", hint)
    times = tuple(read_reminder(one) for one in value)
    if any(one >= other for one, other in pairwise(times)):
        raise value_error("does not grow", hint)
    return times


class Rotation(Part):
    """[Rotation of keys](accounts.md#keys-that-are-due) older than `every`, or than their customer's `rotate_every`."""

    every: Annotated[float, BeforeValidator(Time(3600.0, 3650 * DAY_SECONDS))] | None = Field(
        default=None,
        description="Age that makes a key due for rotation, unless its customer has a `rotate_every`. Without it, such "
        "keys are never due.",
    )
    grace: Annotated[float, BeforeValidator(Time(3600.0, 90 * DAY_SECONDS))] = Field(
        default=GRACE_SECONDS,
        description="How long a key stays valid after its customer has collected the replacement, unless the request "
        "sets a time. A key whose replacement is not collected stays valid. When it has been due for this long, "
        "customer and operators get an alert.",
    )
    deliver: Literal["portal", "webhook"] = Field(
        description="How a customer gets the replacement of a key that is due. `portal`: a contact creates it at "
        "`/account/keys`, which shows it once. `webhook`: the collector creates it and sends it to the customer's "
        "[webhook](webhooks.md), encrypted with the [public key](accounts.md#delivery-by-webhook) that the "
        "customer registered. Customers without a public key use the portal."
    )
    remind: Annotated[tuple[float, ...], BeforeValidator(read_reminders)] = Field(
        default=(7 * DAY_SECONDS, 30 * DAY_SECONDS),
        description="Times, in ascending order, after which customer and operators get another alert about a key that "
        "is still due.",
    )
    remind_end: Annotated[tuple[float, ...], BeforeValidator(read_reminders)] = Field(
        default=(DAY_SECONDS, 3 * DAY_SECONDS),
        description="Times, in ascending order, before the end of a key that was replaced or has an `expires_at`. "
        "Customer and operators get a reminder. Without `rotation` there is none.",
    )

    @property
    def reminders(self) -> tuple[float, ...]:
        """The times after a key's due date of all alerts, in order: those in `remind`, and the grace."""
        return tuple(sorted({self.grace, *self.remind}))


NEEDS = {
    "portal": ("pages", "needs the portal, and there are no pages", "write pages: {}"),
    "webhook": ("webhooks", "needs webhooks, and there are none", 'write webhooks: {encryption: "${WEBHOOK_KEY}"}'),
}
"""The part of the file that each way of delivery requires, the problem without it, and a hint."""


def find_rotation_faults(tree: Table) -> Iterator[Fault]:
    """Find deliveries of keys without the part they require, in a collector.yaml."""
    rotation = tree.get("rotation")
    needs = NEEDS.get(str(rotation.get("deliver"))) if isinstance(rotation, Table) else None
    if needs is not None and needs[0] not in tree:
        yield Fault(("rotation", "deliver"), *needs[1:])
