"""The hub in Redis: one connection to a node, over which reports go out as they come and answers come back in order.

The one file that knows Redis. What the scripts do, memory.py says in Python.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from time import monotonic
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection
from redis.asyncio.connection import parse_url as parse
from redis.exceptions import RedisError, ResponseError

from edgeproxy.sync.report import Gauge, GaugeTold, Period, PeriodTold, Report, Told
from edgeproxy.tasks import Tasks

DEADLINE = 1.0
"""Seconds that an answer may take; then the hub is away."""
HOST_KEPT = 10.0
"""Seconds after its last heartbeat for which a host counts as one of them."""
HOSTS = "rl:hosts"
"""A sorted set of instances by the hub's time of their last heartbeat, seconds."""
KEPT_LONGER = 60
"""Seconds for which a key outlives what it says."""
DAY = 86400

Argument = bytes | str | float


class Away(Exception):
    """The hub cannot be had now; the text says why."""


def script(name: str) -> bytes:
    """The text of a script."""
    return files("edgeproxy.sync").joinpath(f"scripts/{name}.lua").read_bytes()


RATE, PERIOD, GAUGE, HEARTBEAT = "rate", "period", "gauge", "heartbeat"
SCRIPTS = (RATE, PERIOD, GAUGE, HEARTBEAT)


class Link:
    """One connection to one node. Made by `open`; once `away` it stays so, and another is to be opened.

    Answers are awaited in order: `ask` returns a future, which raises Away where none comes.
    """

    def __init__(self, connection: Connection, shas: dict[str, str]) -> None:
        self._connection = connection
        self._shas = shas
        self._asked: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._outgoing: list[bytes] = []
        self._filled = asyncio.Event()
        self._tasks = Tasks()
        self.away: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves to why, once the node does not answer any more."""

    @classmethod
    async def open(cls, url: str, tls: "Tls | None" = None, *, deadline: float = DEADLINE) -> "Link":
        """A connection to the node of this URL (redis:// or rediss://), with the scripts loaded; raises Away."""
        connection = connection_to(url, tls or Tls())
        try:
            async with asyncio.timeout(2 * deadline):
                await connection.connect()  # type: ignore[no-untyped-call]
                shas = {}
                for name in SCRIPTS:
                    await connection.send_command("SCRIPT", "LOAD", script(name))
                    shas[name] = (await connection.read_response(disable_decoding=True)).decode()
        except (RedisError, OSError, TimeoutError, ValueError) as failure:
            await _close(connection)
            raise Away(_why(failure)) from failure
        except BaseException:
            await _close(connection)
            raise
        link = cls(connection, shas)
        link._tasks.start("hub answers", link._read())
        link._tasks.start("hub questions", link._write())
        link._tasks.start("hub deadline", link._watch(deadline))
        return link

    def run(self, name: str, keys: Sequence[bytes | str], given: Sequence[Argument]) -> "asyncio.Future[Any]":
        """Run a script; its answer."""
        return self.ask("EVALSHA", self._shas[name], len(keys), *keys, *given)

    def ask(self, *command: Argument) -> "asyncio.Future[Any]":
        """Send a command; its answer, or ResponseError."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.away.done():
            answer.set_exception(Away(self.away.result()))
            return answer
        self._asked.append((answer, monotonic()))
        self._outgoing.extend(self._connection.pack_command(*command))
        self._filled.set()
        return answer

    async def close(self) -> None:
        """End it; whoever still waits hears that it is away."""
        self.lose("closed")
        await self._tasks.cancel()
        await _close(self._connection)

    async def _write(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            outgoing, self._outgoing = self._outgoing, []
            try:
                await self._connection.send_packed_command(outgoing, check_health=False)
            except (RedisError, OSError) as failure:
                self.lose(_why(failure))
                return

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._connection.read_response(disable_decoding=True, timeout=math.inf)
            except ResponseError as no:
                answer = no
            except (RedisError, OSError) as failure:
                self.lose(_why(failure))
                return
            if not self._asked:
                self.lose("it answered what was not asked")
                return
            waiting, _ = self._asked.popleft()
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    async def _watch(self, deadline: float) -> None:
        """Lose the node once the oldest question has waited for too long."""
        while True:
            await asyncio.sleep(deadline / 4)
            if self._asked and monotonic() - self._asked[0][1] > deadline:
                self.lose(f"no answer within {deadline:g} s")
                return

    def lose(self, why: str) -> None:
        """It is of no use any more; whoever still waits hears that it is away."""
        if not self.away.done():
            self.away.set_result(why)
        while self._asked:
            waiting, _ = self._asked.popleft()
            if not waiting.done():
                waiting.set_exception(Away(why))


class Tls(NamedTuple):
    """TLS towards a node of rediss://: files, and whether it has to prove who it is."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True


def connection_to(url: str, tls: Tls) -> Connection:
    """A connection that has not been made yet. Of the URL: user, password, host, port and database."""
    options = dict(parse(url))
    kind: Any = options.pop("connection_class", Connection)
    if kind is not Connection:
        options |= {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        options |= {"ssl_cert_reqs": "required" if tls.verify else "none", "ssl_check_hostname": tls.verify}
    made: Connection = kind(**options, socket_connect_timeout=DEADLINE, health_check_interval=0)
    return made


async def _close(connection: Connection) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        pass


def _why(failure: BaseException) -> str:
    return str(failure).partition("\n")[0] or type(failure).__name__


# ---- what is asked, and how the answers read


def rate_call(said: Report) -> tuple[list[bytes], list[Argument]]:
    """Keys and arguments of rate.lua."""
    window, bucket = said.window, said.bucket
    kept = math.ceil(said.span * 1.1) + KEPT_LONGER
    given: list[Argument] = [said.instance, said.seq, said.born, _exact(said.now), _exact(said.span)]
    given += [said.cum, said.spent, said.want, kept]
    given += (0, 0, 0) if window is None else (window.limit, window.cells, window.cell)
    given += (0, 0, 0) if bucket is None else (bucket.depth, _exact(bucket.rate), _exact(bucket.level))
    if window is not None:
        for cell in window.changed:
            given += cell
    return [b"rl:{%b}:t" % said.key, b"rl:{%b}:h:%d" % (said.key, said.instance)], given


def rate_told(answer: Sequence[Any]) -> Told:
    """What rate.lua says."""
    known, hosts, in_hand, foreign, claims, level, now, others = answer[:8]
    return Told(
        bool(known),
        hosts,
        in_hand,
        dict(zip(foreign[::2], foreign[1::2], strict=True)),
        dict(zip(claims[::3], claims[1::3], strict=True)),
        {cell: settled for cell, settled in zip(claims[::3], claims[2::3], strict=True) if settled},
        float(level),
        float(now),
        others,
    )


def period_call(said: Period) -> tuple[list[bytes], list[Argument]]:
    """Keys and arguments of period.lua; kept for longer than the longest month."""
    return [b"rl:{%b}:q" % said.key], [said.instance, said.period, said.amount, 35 * DAY]


def period_told(answer: Sequence[Any]) -> PeriodTold:
    """What period.lua says."""
    return PeriodTold(answer[0], answer[1])


def gauge_call(said: Gauge) -> tuple[list[bytes], list[Argument]]:
    """Keys and arguments of gauge.lua."""
    kept = math.ceil(said.until - said.now) + KEPT_LONGER
    return [b"rl:{%b}:g" % said.key], [said.instance, said.amount, _exact(said.now), _exact(said.until), kept]


def gauge_told(answer: Sequence[Any]) -> GaugeTold:
    """What gauge.lua says."""
    return GaugeTold(answer[0], answer[1])


def clock_of(answer: Sequence[Any]) -> float:
    """The hub's clock in an answer of any script, Unix seconds."""
    return int(answer[-2]) + int(answer[-1]) / 1e6


def _exact(number: float) -> str:
    return repr(float(number))
