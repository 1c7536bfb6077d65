"""The report of an edge with each batch, outside its body: its version, and the age of its limits. Pure.

It is for people, and nothing depends on it, so missing or odd values are ignored. The exception is the residency of the
batch, if the edge tells residencies apart.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy import __version__

AGENT = re.compile(r"edgeproxy/([0-9A-Za-z.+-]{1,40})")
"""`User-Agent` of an edge."""
SYNC_FIELD = "Edge-Sync-Age"
"""Field with the whole seconds since edge and hub synchronised limits. Missing if the edge shares none."""
RESIDENCY_FIELD = "Edge-Residency"
"""Field with the residency of the customers in a batch. Collectors of other residencies refuse the batch."""
SECONDS = re.compile(r"[0-9]{1,9}")


class EdgeReport(NamedTuple):
    """The version of an edge, and the seconds since it synchronised with the hub. None: unknown."""

    version: str | None = None
    sync_age: int | None = None


def format_fields(sync_age: float | None, residency: str | None = None) -> dict[str, str]:
    """Return the fields for the next batch."""
    report_fields = {"User-Agent": f"edgeproxy/{__version__}"}
    if residency is not None:
        report_fields[RESIDENCY_FIELD] = residency
    return report_fields if sync_age is None else report_fields | {SYNC_FIELD: str(round(sync_age))}


def parse_fields(fields: Mapping[str, str]) -> EdgeReport:
    """Parse the fields of a batch."""
    agent, age = AGENT.fullmatch(fields.get("User-Agent", "")), fields.get(SYNC_FIELD, "")
    return EdgeReport(agent[1] if agent else None, int(age) if SECONDS.fullmatch(age) else None)
