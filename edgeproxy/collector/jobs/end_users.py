"""End users stored before hashing was enabled. They are hashed while the collector serves."""

from functools import partial

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, Rest, repeat
from edgeproxy.collector.privacy.end_users import hash_clear_items

HASH_SECONDS = 3600.0
"""Seconds until a failed run is repeated."""
HASHED_SECONDS = 86400.0
"""Seconds between two runs over all events. New rows are hashed when they are written."""


def start_end_user_job(tasks: Tasks, database: Database) -> None:
    """Start the job. Later runs find nothing to do."""
    failed = "end users could not be hashed, and are in the clear"
    job = Job("end-users", HASH_SECONDS, failed, partial(_hash, database))
    tasks.start(job.name, repeat(job, log.RateLimitedLog(60.0)))


async def _hash(database: Database) -> Rest:
    if count := await hash_clear_items(database):
        log.get_logger().info("end users in the clear were hashed", rows=count)
    return Rest(HASHED_SECONDS)
