"""The collector itself."""

from pydantic import ConfigDict
from typing_extensions import TypedDict

from edgeproxy.collector.database.periodic import JobResult


class Ready(TypedDict):
    """Whether batches can be taken now."""

    ready: bool
    """Whether batches can be taken now."""
    reason: str | None
    """The reason why not; null where they can."""


class JobResponse(TypedDict):
    """A job: work that a collector does again and again beside answering requests."""

    name: str
    """The name of the job, as in metrics."""
    period_s: float
    """The seconds of rest after each run; a job that has work left may rest for less."""
    lock: str | None
    """The lock under which one collector of several runs the job; null where each collector runs it."""
    holds_jobs: bool
    """Whether a run is other jobs under this lock: it goes on until the lock is lost or the collector stops."""
    running_since: str | None
    """The time at which the present run began; null where the job rests."""
    result: JobResult | None
    """The result of the last run: `succeeded`, `failed` (the log has the reason), or `standby` where another collector
    has the lock; null where none is over yet."""
    ended_at: str | None
    """The time at which the last run was over; null where none is yet."""
    took_s: float | None
    """The seconds that the last run took; null where none is over yet."""
    succeeded_at: str | None
    """The time at which a run last succeeded; null where none has since the collector started."""


class JobList(TypedDict):
    """The jobs of a collector."""

    jobs: list[JobResponse]
    """The jobs, by name."""


class ApiDescription(TypedDict):
    """The description of the API, with all members of an OpenAPI document."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    openapi: str
    """The version of OpenAPI in which it is written."""
