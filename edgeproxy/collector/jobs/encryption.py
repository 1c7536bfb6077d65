"""Encryption while a collector serves: keys are unwrapped again in time, and plain-text rows are encrypted."""

from functools import partial

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.accounts.end_users import seal_clear_secrets
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, Rest, repeat
from edgeproxy.collector.encryption.keyring import Keyring, refresh_keyring
from edgeproxy.collector.encryption.migration import seal_clear_rows

SEAL_SECONDS = 3600.0
"""Seconds until a failed run is repeated."""
SEALED_SECONDS = 86400.0
"""Seconds between two runs over all rows. New rows are encrypted when they are written."""
REFRESHES_MIN = 4
"""Attempts to unwrap keys before they expire, so that a short outage of the key service does no harm."""
REFRESH_FAILURE = "keys of encrypted columns could not be unwrapped anew"
SEAL_FAILURE = "rows could not be encrypted, and are in the clear"


def start_encryption_jobs(tasks: Tasks, database: Database, keyring: Keyring) -> None:
    """Start both jobs."""
    seconds = keyring.seconds / REFRESHES_MIN
    refresh = Job("encryption-keys", seconds, REFRESH_FAILURE, partial(refresh_keyring, database, keyring))
    seal = Job("encryption-rows", SEAL_SECONDS, SEAL_FAILURE, partial(_seal, database))
    for job in (refresh, seal):
        tasks.start(job.name, repeat(job, log.RateLimitedLog(60.0)))


async def _seal(database: Database) -> Rest:
    if count := await seal_clear_rows(database) + await seal_clear_secrets(database):
        log.get_logger().info("rows in the clear were encrypted", rows=count)
    return Rest(SEALED_SECONDS)
