"""The report of an edge beside each batch, outside of its body: its version, and how old its limits are. Pure.

People look at it, and nothing depends on it: whatever is missing or odd counts as not said. But for the residency of
the batch, where the edge tells residencies apart.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy import __version__

AGENT = re.compile(r"edgeproxy/([0-9A-Za-z.+-]{1,40})")
"""`User-Agent` of an edge."""
SYNC_FIELD = "Edge-Sync-Age"
"""Field with the whole seconds since edge and hub agreed on limits; missing if the edge shares none."""
RESIDENCY_FIELD = "Edge-Residency"
"""Field with the residency of the customers in a batch: a collector of another one takes nothing of it."""
SECONDS = re.compile(r"[0-9]{1,9}")


class EdgeReport(NamedTuple):
    """The version of an edge, and the seconds since it agreed with the hub; None where it did not say."""

    version: str | None = None
    sync_age: int | None = None


def format_fields(sync_age: float | None, residency: str | None = None) -> dict[str, str]:
    """Write what goes with the next batch."""
    report_fields = {"User-Agent": f"edgeproxy/{__version__}"}
    if residency is not None:
        report_fields[RESIDENCY_FIELD] = residency
    return report_fields if sync_age is None else report_fields | {SYNC_FIELD: str(round(sync_age))}


def parse_fields(fields: Mapping[str, str]) -> EdgeReport:
    """Read the fields that came with a batch."""
    agent, age = AGENT.fullmatch(fields.get("User-Agent", "")), fields.get(SYNC_FIELD, "")
    return EdgeReport(agent[1] if agent else None, int(age) if SECONDS.fullmatch(age) else None)
