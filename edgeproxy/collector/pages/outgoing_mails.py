"""Bounds for mails that any client may request, to any e-mail address: mails per hour, and requests at once.

Networks have a share of both bounds, and domains have a share of the mails per hour (base/shares.py). So a host can
only use up its own share, and newcomers from other networks still get their mail. The share is taken before the address
is looked up, so a refusal does not reveal whether the address exists.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from edgeproxy.base import log
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.base.shares import Allowance, Claim, Exhausted, Places, Share, build_network_claim
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import CONNECTION_ERRORS, format_reason
from edgeproxy.collector.mails import mail

UNDER_WAY_MAX = 200
"""Requests for a mail that are under way at once, from the lookup of the address to the mail server."""
MAILS_MAX = 20
"""Mails that are sent at once. Further mails wait."""
HOUR_SECONDS = 3600.0
DOMAIN_SHARE = 3 / 4
"""The largest fraction of an hour's mails to addresses of one domain. It is large as many people use one provider."""


class HourlyMails:
    """The mails of one kind that all clients together may request per hour."""

    def __init__(self, name: str, per_hour: int) -> None:
        """Create an allowance. `name` is the name of the good in metrics."""
        self._allowance = Allowance(per_hour, HOUR_SECONDS)
        self.good = ScarceGood(
            name, lambda: self._allowance.amount, lambda: self._allowance.count_in_use(time.monotonic())
        )

    def take(self, client: str, email: str, stored: int) -> Exhausted | None:
        """Take a mail to `email`, for the IP address `client`, and return None; or return the reason for a refusal.

        `stored` is the number of mails of the last hour in the database, from all collectors.
        """
        now = time.monotonic()
        elsewhere = max(0, stored - self._allowance.count_in_use(now))
        domain = Share(f"domain {email.rpartition('@')[2]}", DOMAIN_SHARE)
        exhausted = self._allowance.take((*build_network_claim(client), domain), now, elsewhere)
        if exhausted is not None:
            self.good.record_refusal(exhausted.key)
        return exhausted


class OutgoingMails:
    """The requests for mails that are under way. They run in the background: no page waits for them."""

    def __init__(self) -> None:
        self._places = Places(UNDER_WAY_MAX)
        self._slots = asyncio.Semaphore(MAILS_MAX)
        self._tasks = Tasks()
        self._log = log.RateLimitedLog(60.0)
        self.good = ScarceGood("mails_under_way", lambda: UNDER_WAY_MAX, lambda: self._places.in_use)

    def find_exhausted(self, client: str) -> str | None:
        """Return the key whose share a client has used up, or None if `start` has room for the client."""
        key = self._places.find_exhausted(build_network_claim(client))
        if key is not None:
            self.good.record_refusal(key)
        return key

    def start(self, client: str, work: Callable[[], Coroutine[None, None, object]]) -> None:
        """Start work for a client, after `find_exhausted` has returned None for it."""
        claim = build_network_claim(client)
        self._places.take(claim)
        self._tasks.start("mail", self._run(claim, work))

    async def _run(self, claim: Claim, work: Callable[[], Coroutine[None, None, object]]) -> None:
        try:
            await work()
        except mail.MAIL_ERRORS as error:
            self._log.error("a link could not be mailed", "mail", why=str(error)[:200])
        except CONNECTION_ERRORS as error:
            self._log.error("a link could not be made", "database", why=format_reason(error))
        finally:
            self._places.release(claim)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot to send a mail, and hold it. Take a slot only when a mail is ready to be sent."""
        async with self._slots:
            yield
