"""Expired sessions, sign-in links and unconfirmed addresses are deleted soon after they expire.

New rows also trigger this deletion. The job works when there are no visitors.
"""

import time

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import held_forms, sessions, sign_in_links, sign_ups, status_subscribers
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.pages import held_forms as forms
from edgeproxy.collector.pages import sign_up, subscriptions
from edgeproxy.collector.pages.sessions import match_expired_links, match_expired_sessions

ROUND_SECONDS = 600.0
FAILURE = "sessions and links that are over could not be deleted; none of them can be used"


async def delete_expired(connection: AsyncConnection, now: float) -> None:
    """Delete rows that have expired at a Unix second."""
    at = int(now)
    await connection.execute(sa.delete(sessions).where(match_expired_sessions(at)))
    await connection.execute(sa.delete(sign_in_links).where(match_expired_links(at)))
    await connection.execute(sa.delete(held_forms).where(forms.match_expired(at)))
    await connection.execute(sa.delete(sign_ups).where(sign_up.match_expired(at)))
    await connection.execute(sa.delete(status_subscribers).where(subscriptions.match_expired(at)))


class ExpiredRowsJob:
    """Deletes until it is cancelled."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Delete expired rows every ROUND_SECONDS, until cancelled."""
        await repeat(Job("expired-sign-ins", ROUND_SECONDS, FAILURE, self._step), log.RateLimitedLog(60.0))

    async def _step(self) -> None:
        async with self._database.writing() as connection:
            await delete_expired(connection, time.time())
