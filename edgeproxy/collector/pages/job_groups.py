"""Jobs in groups for their page: failed and late ones first, all others folded by their pause. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from edgeproxy.collector.database.schema import HOUR, MINUTE
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.api import JsonDocument

LATE_RESTS, LATE_SECONDS = 3, 5 * MINUTE
"""A job is late if its last activity is older than this number of pauses plus this many seconds."""
RESTS = {"seconds": MINUTE, "minutes": HOUR, "hours": None}
"""Groups of jobs by their pause. A group has pauses shorter than this number of seconds; None: any."""


class JobGroups(NamedTuple):
    """Jobs by their state."""

    failed: Sequence[JsonDocument]
    late: Sequence[JsonDocument]
    others: Sequence[tuple[str, Sequence[JsonDocument]]]
    """All other jobs by the group of their pause, shortest first."""


def group_jobs(jobs: Sequence[JsonDocument], now: float) -> JobGroups:
    """Return jobs in groups at the Unix second `now`."""
    failed = [job for job in jobs if job["result"] == "failed"]
    late = [job for job in jobs if job not in failed and is_late(job, now)]
    others: dict[str, list[JsonDocument]] = {name: [] for name in RESTS}
    for job in jobs:
        if job not in failed and job not in late:
            name = next(name for name, most in RESTS.items() if most is None or job["period_s"] < most)
            others[name].append(job)
    return JobGroups(failed, late, list(others.items()))


def is_late(job: JsonDocument, now: float) -> bool:
    """Return True if a job has begun or ended no run for too long.

    A run that holds other jobs lasts as long as this collector holds their lock, so it is never late.
    """
    if job["holds_jobs"] and job["running_since"] is not None:
        return False
    written = job["running_since"] or job["ended_at"]
    if written is None:
        return False
    return bool(now - parse_time(written).timestamp() > LATE_RESTS * job["period_s"] + LATE_SECONDS)
