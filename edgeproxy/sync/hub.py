"""The hub as a supervisor has it: reached, lost and reached again, with its clock and the number of hosts on it.

Nobody waits for it: who reports gets a future, which raises Away where there is no answer. Once it is away it
is tried again twice a second, by one connection at a time, and everything goes on when that answers.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import ResponseError

from edgeproxy import log
from edgeproxy.config.kinds import without_password
from edgeproxy.sync import redis
from edgeproxy.sync.redis import Away, Link, Tls
from edgeproxy.sync.report import Gauge, GaugeTold, Period, PeriodTold, Report, Told
from edgeproxy.tasks import Tasks

AGAIN = 0.5
"""Seconds between two attempts to reach a hub that is away, half of it more or less."""
HEARTBEAT = 2.0
"""Seconds between two heartbeats, of which the hub counts hosts."""
SAMPLED = 60.0
"""Seconds for which a sample of the hub's clock counts."""

T = TypeVar("T")


class Sample(NamedTuple):
    """The hub's clock less the monotonic one, half way between the moments at which it was asked and answered."""

    offset: float
    rtt: float
    at: float


class Hub:
    """One Redis. `run` keeps it reached; `changed` is called when it is lost or reached, and when hosts come and go."""

    def __init__(self, url: str, instance: int, changed: Callable[[], None], tls: Tls | None = None) -> None:
        self.name = without_password(url)
        self._url = url
        self._tls = tls
        self._instance = instance
        self._changed = changed
        self._link: Link | None = None
        self._tasks = Tasks()
        self._samples: deque[Sample] = deque(maxlen=200)
        self._log = log.get()
        self.hosts = 1
        """Hosts that the hub knows, this one among them."""
        self.why: str | None = "not reached yet"
        """Why it is away; None where it is not."""
        self.heard_at = 0.0
        """Monotonic time of its last answer."""
        self.errors = 0
        """How often it was lost, or refused something."""

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        return self._link is not None

    @property
    def rtt(self) -> float:
        """Seconds to the hub and back, of the quickest of the last minute's answers."""
        return min((sample.rtt for sample in self._samples), default=0.0)

    @property
    def offset(self) -> float | None:
        """The hub's clock (Unix time) less the monotonic one, as the quickest of the last minute's answers had it."""
        return min(self._samples, key=lambda sample: sample.rtt).offset if self._samples else None

    async def run(self) -> None:
        """Reach it, for ever, whenever it is away."""
        while True:
            try:
                link = await Link.open(self._url, self._tls)
                await self._beat(link)
            except (Away, ResponseError) as away:
                self._lose(str(away))
            else:
                self._link, self.why = link, None
                self._log.info("the hub is reached", hub=self.name, hosts=self.hosts)
                self._changed()
                try:
                    await self._hold(link)
                finally:
                    self._link = None
                    await link.close()
            await asyncio.sleep(AGAIN * random.uniform(0.5, 1.5))

    async def _hold(self, link: Link) -> None:
        """Until it is away, say that this host is there."""
        beats = self._tasks.start("hub heartbeat", self._beats(link))
        try:
            self._lose(await asyncio.shield(link.away))
        finally:
            beats.cancel()

    async def _beats(self, link: Link) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT * random.uniform(0.8, 1.2))
            try:
                await self._beat(link)
            except Away:
                return
            except ResponseError as no:
                # It is there and will not be written to, or has lost the scripts: reached anew it has them again.
                link.lose(str(no))
                return

    async def _beat(self, link: Link) -> None:
        sent = monotonic()
        answer = await link.run(redis.HEARTBEAT, [redis.HOSTS], [self._instance, redis.HOST_KEPT])
        self._sampled(sent, answer)
        if answer[0] != self.hosts:
            self.hosts = answer[0]
            if self._link is link:
                self._changed()

    def _lose(self, why: str) -> None:
        was_up = self._link is not None
        if was_up or self.why != why:
            self._log.error("the hub is away", hub=self.name, why=why)
        self._link, self.why = None, why
        if was_up:
            self.errors += 1
            self._samples.clear()
            self._changed()

    def _sampled(self, sent: float, answer: Any) -> None:
        now = self.heard_at = monotonic()
        self._samples.append(Sample(redis.clock_of(answer) - (sent + now) / 2, now - sent, now))
        while self._samples[0].at < now - SAMPLED:
            self._samples.popleft()

    # ---- reports

    def rate(self, said: Report) -> "asyncio.Future[Told]":
        """Report a rate."""
        return self._ask(redis.RATE, redis.rate_call(said), redis.rate_told)

    def period(self, said: Period) -> "asyncio.Future[PeriodTold]":
        """Report a quota."""
        return self._ask(redis.PERIOD, redis.period_call(said), redis.period_told)

    def gauge(self, said: Gauge) -> "asyncio.Future[GaugeTold]":
        """Report what is in use."""
        return self._ask(redis.GAUGE, redis.gauge_call(said), redis.gauge_told)

    def _ask(
        self, name: str, call: tuple[list[bytes], list[redis.Argument]], read: Callable[[Any], T]
    ) -> "asyncio.Future[T]":
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._link is None:
            answer.set_exception(Away(self.why or "away"))
        else:
            raw = self._link.run(name, *call)
            raw.add_done_callback(partial(self._answered, answer, monotonic(), read))
        return answer

    def _answered(
        self, answer: "asyncio.Future[T]", sent: float, read: Callable[[Any], T], raw: "asyncio.Future[Any]"
    ) -> None:
        failure = raw.exception()
        if failure is None:
            self._sampled(sent, raw.result())
            answer.set_result(read(raw.result()))
            return
        if not isinstance(failure, Away):
            # It is there, and cannot do what it is asked: a replica that may not write, or one without memory.
            self.errors += 1
            failure = Away(str(failure))
        answer.set_exception(failure)

    async def close(self) -> None:
        """End whatever this has begun."""
        await self._tasks.cancel()
