"""The hub in Redis: one connection to a node, which sends reports immediately and receives answers in order.

Only this module uses the Redis library. Calls and their answers are in calls.py.
"""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from types import NoneType
from typing import Any, NamedTuple

from hiredis import pack_command
from redis._parsers import _AsyncHiredisParser
from redis.asyncio import Redis as Client
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import parse_url as parse
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import InvalidResponse, NoPermissionError, ReadOnlyError, RedisError, ResponseError

from edgeproxy.base.tasks import Tasks
from edgeproxy.base.trust import create_context
from edgeproxy.config.addresses import Address
from edgeproxy.config.hub_settings import SENTINELS, HubUrl
from edgeproxy.config.tls import OutwardTls
from edgeproxy.hub.bounds import EXCERPT_CHARACTERS_MAX, AnswerBounds, format_invalid_answer
from edgeproxy.hub.calls import Argument, RedisAnswer
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.functions import LIBRARY, format_call, is_function_missing

ANSWER_SECONDS_MAX = 1.0
"""Maximum seconds for an answer. After that the node counts as lost."""
SENTINEL_SECONDS = 0.4
"""Seconds before the next Sentinel is asked."""
ANSWERS_PER_TURN_MAX = 50
"""Maximum answers in one turn of the event loop."""
HOST_RETENTION_SECONDS = 10.0
"""Seconds after its last heartbeat before a host is no longer counted."""
HOSTS_KEY = b"rl:heartbeats"
"""The instances with the hub's times of their last heartbeats, as text (scripts/heartbeat.lua)."""
ANSWERS: dict[str, tuple[type, ...]] = {
    "FCALL": (list, int),
    "FUNCTION": (bytes,),
    "LINDEX": (bytes, NoneType),
    "LLEN": (int,),
    "LRANGE": (list,),
}
"""Types of the answers to each command, except errors."""
PARSE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Exceptions of the library for answers or parts of answers that are invalid."""

LINK_NUMBERS = itertools.count(1)


Options = dict[str, Any]
"""Options of the library's connections."""


class FunctionsMissingError(HubUnavailableError):
    """The hub lacks the functions of this version, and its user may not load them."""

    def __init__(self) -> None:
        super().__init__(
            f"it lacks the functions of this version, {LIBRARY.name}, and its user may not load them: "
            "`edgeproxy hub load` does"
        )


async def call_function(
    ask: Callable[..., Awaitable[RedisAnswer]], name: str, keys: Sequence[bytes | str], arguments: Sequence[Argument]
) -> int:
    """Call a function of the directory, whose answer is a number. `ask` sends a command to the hub.

    Raises HubUnavailableError, including FunctionsMissingError, and ResponseError if the function refuses.
    """
    try:
        answer = await ask(*format_call(name, keys, arguments))
    except ResponseError as error:
        if is_function_missing(error):
            raise FunctionsMissingError from error
        raise
    if type(answer) is not int:
        raise HubUnavailableError(format_invalid_answer(answer, f"the function {name}"))
    return answer


class Link:
    """One connection to one node, created by `open`. A link that is `away` stays so, and a new one must be opened.

    Answers come in order. `ask` returns a future, which raises HubUnavailableError if there is no answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pending: deque[tuple[asyncio.Future[RedisAnswer], float, Argument]] = deque()
        self._outgoing: list[bytes] = []
        self._filled = asyncio.Event()
        self._tasks = Tasks()
        self.number = next(LINK_NUMBERS)
        """The number of the connection. Another connection may lead to a server that has lost data."""
        self.away: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves with the reason once the node no longer answers."""

    @classmethod
    async def open(cls, url: str, tls: "Tls | None" = None, *, deadline: float = ANSWER_SECONDS_MAX) -> "Link":
        """Open a connection to the node of this URL (redis:// or rediss://). Raises HubUnavailableError.

        With redis+sentinel:// it goes to the primary that the Sentinels name.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(2 * deadline) as limit:
                connection = create_connection(await find_primary(url, tls or Tls()), tls or Tls())
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError, *PARSE_ERRORS) as error:
            await _close(connection)
            reason_text = f"no answer within {2 * deadline:g} s" if limit.expired() else format_error(error)
            raise HubUnavailableError(reason_text) from error
        except BaseException:
            await _close(connection)
            raise
        link = cls(connection)
        link._tasks.start("hub answers", link._read())
        link._tasks.start("hub questions", link._write())
        link._tasks.start("hub deadline", link._watch(deadline))
        return link

    def call_function(
        self, name: str, keys: Sequence[bytes | str], arguments: Sequence[Argument]
    ) -> "asyncio.Future[RedisAnswer]":
        """Call a function. The future has its answer, or raises ResponseError."""
        return self.ask(*format_call(name, keys, arguments))

    async def load_functions(self) -> None:
        """Load the functions of this version if they are missing.

        Raises FunctionsMissingError if the user may not do so, HubUnavailableError, and ResponseError.
        """
        try:
            answer = await self.ask("FUNCTION", "LOAD", LIBRARY.text)
        except NoPermissionError as error:
            raise FunctionsMissingError from error
        except ResponseError as error:
            if "already exists" in str(error):
                return
            raise
        if answer != LIBRARY.name.encode():
            self.lose(why := format_invalid_answer(answer, "FUNCTION LOAD"))
            raise HubUnavailableError(why)

    def ask(self, *command: Argument) -> "asyncio.Future[RedisAnswer]":
        """Send a command. The future has its answer, or raises ResponseError."""
        answer: asyncio.Future[RedisAnswer] = asyncio.get_running_loop().create_future()
        if self.away.done():
            answer.set_exception(HubUnavailableError(self.away.result()))
            return answer
        self._pending.append((answer, monotonic(), command[0]))
        self._outgoing.append(pack_command(command))  # type: ignore[arg-type]  # Of any number of them.
        self._filled.set()
        return answer

    async def close(self) -> None:
        """Close the connection. Open futures raise HubUnavailableError."""
        self.lose("closed")
        await self._tasks.cancel()
        await _close(self._connection)

    async def _write(self) -> None:
        while not self.away.done():
            await self._filled.wait()
            if self.away.done():
                return  # Otherwise the library would reconnect.
            self._filled.clear()
            outgoing, self._outgoing = self._outgoing, []
            try:
                await self._connection.send_packed_command(outgoing, check_health=False)
            except (RedisError, OSError) as error:
                self.lose(format_error(error))
                return
            except AttributeError:
                # The reading task has noticed a closed connection meanwhile and removed its writer.
                self.lose("it was closed")
                return

    async def _read(self) -> None:
        for number in itertools.count(1):
            if not number % ANSWERS_PER_TURN_MAX:
                # Processing the answers takes time, so other tasks get a turn.
                await asyncio.sleep(0)
            try:
                answer = await self._connection.read_response(disable_decoding=True, timeout=math.inf)
            except ResponseError as error:
                answer = error
            except (RedisError, OSError, *PARSE_ERRORS) as error:
                self.lose(format_error(error))
                return
            if not self._pending:
                self.lose("it answered what was not asked")
                return
            future, _, command = self._pending[0]
            if not isinstance(answer, Exception) and type(answer) not in ANSWERS.get(str(command), (type(answer),)):
                self.lose(format_invalid_answer(answer, str(command)))
                return
            self._pending.popleft()
            if isinstance(answer, ReadOnlyError):
                # The primary has become a replica. Another connection leads to the new one.
                if not future.done():
                    future.set_exception(HubUnavailableError(format_error(answer)))
                self.lose(format_error(answer))
                return
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _watch(self, deadline: float) -> None:
        """Close the connection once the oldest command has waited for ANSWER_SECONDS_MAX."""
        while True:
            await asyncio.sleep(deadline / 4)
            if self._pending and monotonic() - self._pending[0][1] > deadline:
                self.lose(f"no answer within {deadline:g} s")
                return

    def lose(self, why: str) -> None:
        """Close the connection as lost. Open futures raise HubUnavailableError."""
        if not self.away.done():
            self.away.set_result(why)
        self._filled.set()
        while self._pending:
            future, _, _ = self._pending.popleft()
            if not future.done():
                future.set_exception(HubUnavailableError(why))


class Tls(NamedTuple):
    """TLS for a node of rediss://: files, and whether its certificate is verified."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True

    @classmethod
    def from_settings(cls, settings: OutwardTls) -> "Tls":
        """Return TLS as the configuration describes it."""
        return cls(settings.ca, settings.cert, settings.key, settings.verify)


def create_connection(url: str, tls: Tls, **overrides: object) -> Connection:
    """Return an unopened connection for the user, password, host, port and database of a URL.

    `overrides`: options of the library. Raises TlsFilesError.
    """
    kind, options = _build_options(url, tls)
    connection: Connection = kind(**options | overrides)
    return connection


def _build_options(url: str, tls: Tls) -> tuple[type[Connection], Options]:
    """Return the library's connection class for a URL, and its options."""
    options: Options = dict(parse(url))
    kind: type[Connection] = options.pop("connection_class", Connection)
    if kind is not Connection:
        kind = TrustingConnection
        options["tls"] = tls
    options |= {"socket_connect_timeout": ANSWER_SECONDS_MAX, "health_check_interval": 0, "parser_class": BoundedParser}
    # Timeouts are set in this module. The library uses asyncio.wait_for while it sends, which may miss a cancellation
    # in Python 3.11.
    return kind, options | {"socket_timeout": None}


class TrustingConnection(SSLConnection):
    """A TLS connection of the library with the trusted authorities of all connections."""

    def __init__(self, *, tls: Tls, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = create_context(
            tls.ca, tls.cert, tls.key, verify=tls.verify, check_hostname=tls.verify
        )


async def find_primary(url: str, tls: Tls) -> str:
    """Return the URL of the primary that the Sentinels name. Any other URL is returned unchanged.

    Raises errors of the library, including MasterNotFoundError.
    """
    parts = HubUrl.parse(url)
    if parts.scheme not in SENTINELS:
        return url
    scheme, (service, _, database) = SENTINELS[parts.scheme], parts.path.partition("/")
    sentinels = Sentinel([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = [_open_sentinel(f"{scheme}://{at}", tls) for at in parts.where]
    try:
        host, port = await sentinels.discover_master(service)
    except MasterNotFoundError:  # It names each Sentinel, and of an error only the type.
        faults = [fault for fault in await asyncio.gather(*map(_find_fault, sentinels.sentinels)) if fault]
        if not faults:
            raise
        raise MasterNotFoundError(f"No master found for '{service}': {'; '.join(dict.fromkeys(faults))}") from None
    finally:
        await sentinels.aclose()
    who = f"{parts.who}@" if parts.who else ""
    return f"{scheme}://{who}{Address(str(host), int(port))}/{database}"


async def _find_fault(sentinel: Client) -> str | None:
    """Return why a Sentinel does not answer; None if it does."""
    try:
        await sentinel.ping()
    except (RedisError, OSError) as error:
        return format_error(error)
    return None


def _open_sentinel(url: str, tls: Tls) -> Client:
    """Return a client of one Sentinel, which waits for a part of the total time."""
    kind, options = _build_options(url, tls)
    options |= {
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    for own in ("username", "password", "db"):
        options.pop(own, None)  # They are for the primary, not for Sentinels.
    return Client.from_pool(ConnectionPool(connection_class=kind, decode_responses=True, **options))


class BoundedParser(_AsyncHiredisParser):
    """The hiredis parser, which gets only answers within AnswerBounds."""

    __slots__ = ("_bounds",)

    def on_connect(self, connection: Connection) -> None:
        """Reset the bounds for a new connection."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        self._bounds = AnswerBounds()

    async def read_from_socket(self) -> bool:
        """Read the next bytes. Raises InvalidResponse, or Lost if the connection is closed."""
        stream, reader = self._stream, self._reader
        assert stream is not None
        assert reader is not None
        data = await stream.read(self._read_size)
        if not data:
            raise Lost("Connection closed by server.")
        try:
            self._bounds.check(data)
        except ValueError as error:
            raise InvalidResponse(str(error)) from error
        reader.feed(data)
        return True


async def _close(connection: Connection | None) -> None:
    try:
        if connection is None:
            return
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        pass


def format_error(error: BaseException) -> str:
    """Return the text of an error in one line, with the code of an error from Redis."""
    if isinstance(error, PARSE_ERRORS):
        return f"it answered what cannot be read ({str(error)[:EXCERPT_CHARACTERS_MAX]}): is it a Redis?"
    text = str(error).partition("\n")[0] or type(error).__name__
    if text.startswith("unknown command") and "FCALL" in text:
        return "it knows no functions: it has to be Redis 7 or later, or Valkey"
    code = getattr(error, "status_code", None)
    return text if code in (None, "ERR") or text.startswith(code) else f"{code} {text}"
