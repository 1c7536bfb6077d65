"""Connections to a PostgreSQL primary, directly or through a pooler. The URL limits their number.

A connection is valid only while its server accepts writes. After a fail-over by address the old server may still run as
a standby or read-only. Its connections are closed, and new ones reach the new primary. `check_role` checks each
new connection, and each connection last checked more than ROLE_SECONDS ago. A statement's error can also show that the
server is no primary, and then closes the connection.

A pooler by transaction, for example PgBouncer, runs each transaction on any of its own server connections. Statements
then have no names, and settings hold for one transaction.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import asyncpg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from edgeproxy.base import log
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.trust import create_context
from edgeproxy.config.collector.database_url import CONNECTIONS_DEFAULT

CONNECT_TIMEOUT = 10.0
"""Seconds for a server's answer to a new connection."""
STATEMENT_TIMEOUT, JOB_STATEMENT_TIMEOUT = 60.0, 300.0
"""Seconds that a statement may take, and a statement of a job that reads.

A caller waits for a free connection for at most half of that.
"""
APPLICATION = {"application_name": "edgeproxy collector"}
SERVER_SETTINGS = {
    # Acknowledged data must be on disk, even if the server's default is weaker.
    "synchronous_commit": "on",
    # Row-level security makes the planner overestimate short statements, and compiling one takes up to a second.
    "jit": "off",
}
"""The settings of sessions or, through a pooler, of each transaction."""
JOB_SERVER_SETTINGS = SERVER_SETTINGS | {"max_parallel_workers_per_gather": "0"}
"""The settings for jobs that read. A slow job leaves cores to page requests."""
READERS_MAX = 4
"""Connections for reading. Jobs have the same number of their own, so pages never wait for a job's connection."""
ROLE_SECONDS = 1.0
"""Seconds until a connection's server is asked again whether it is the primary."""
IS_WRITABLE = "SELECT NOT (pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool)"
"""The statement that asks whether a server accepts writes."""
LOOKED_AT, LOOKED_AT_SECONDS = "looked at", "looked at seconds"
"""Keys in a connection's record: the checked driver connection, and the time of the check."""
PASSWORD = "password"
"""The key in a connection's record for the password that opened it."""
LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""Errors of a broken connection."""
FALLBACK_MODES = ("allow", "prefer")
"""Values of `sslmode` that let the server decide about TLS."""
VERIFIED_MODES = ("verify-ca", "verify-full")
UNAVAILABLE_STATES = ("08", "28", "53", "57P")
"""Prefixes of SQLSTATEs of an unavailable server: no connection, login refused, no resources, server starting or
stopping. A login is refused while the server has a new password already, and the collector has not.
"""
READ_ONLY_STATE = "25006"
RECOVERY_STATES = ("55000", "40001")
"""SQLSTATEs of a standby. Other faults have them too, but only a standby's message says "recovery"."""


Options = dict[str, Any]
"""Options of the driver and of SQLAlchemy's dialect for it."""


class NotPrimaryError(ConnectionError):
    """The server accepts no writes: it is a standby or read-only."""

    def __init__(self) -> None:
        super().__init__("PostgreSQL at this address is a standby or read-only, not the primary")


class Connections(NamedTuple):
    """The number of a collector's connections by use. One more connection writes."""

    readers: int
    """Connections for reading. Jobs have as many of their own."""
    locks: int
    """Connections that hold locks of jobs, each while its job runs."""

    @classmethod
    def divide(cls, count: int) -> "Connections":
        """Divide a number of connections."""
        readers = max(2, min(READERS_MAX, (count - 1) // 6))
        return cls(readers, count - 1 - 2 * readers)


class Server:
    """A PostgreSQL server, from a URL whose parameters `config.collector.database_url` has checked."""

    def __init__(self, url: URL) -> None:
        options = {name: str(value) for name, value in url.query.items()}
        self._url = url.set(drivername="postgresql+asyncpg", query={})
        self._options = options
        self.name = url.set(query={}).render_as_string(hide_password=True)
        """The URL without its password and parameters."""
        self._password = url.password
        self.is_pooled: bool | None = {"transaction": True, "none": False}.get(options.get("pooler", "auto"))
        """True if a pooler is used, False if not, None until the first connection has shown it."""
        self._detection = asyncio.Lock()
        self.connections = Connections.divide(int(options.get("connections", CONNECTIONS_DEFAULT)))

    def create_engines(self) -> tuple[AsyncEngine, AsyncEngine, AsyncEngine, AsyncEngine]:
        """Return the engines for writing, for reading, for jobs that read, and for locks of jobs."""
        readers, locks = self.connections
        return (
            self.create_engine(1),
            self.create_engine(readers),
            self.create_engine(readers, patience=JOB_STATEMENT_TIMEOUT, settings=JOB_SERVER_SETTINGS),
            self.create_engine(1, more=locks - 1),
        )

    def create_engine(
        self,
        connections: int,
        *,
        more: int = 0,
        patience: float | None = STATEMENT_TIMEOUT,
        settings: Mapping[str, str] = SERVER_SETTINGS,
    ) -> AsyncEngine:
        """Create an engine with permanent connections, and `more` that are opened on demand and closed after use.

        A statement may take `patience` seconds, and waiting for a connection half of that; None: no limit.
        """
        engine = create_async_engine(
            self._url,
            connect_args={"async_creator_fn": self._open, "timeout": CONNECT_TIMEOUT, "command_timeout": patience},
            pool_size=connections,
            max_overflow=more,
            pool_timeout=None if patience is None else patience / 2,
            hide_parameters=True,
        )
        select_settings = sa.select(*(sa.func.set_config(*setting, True) for setting in settings.items()))

        @event.listens_for(engine.sync_engine, "do_connect")
        def prepare(_dialect: object, record: ConnectionPoolEntry | None, _args: object, options: Options) -> None:
            options["password"] = self._password  # None as well: the URL has the first password.
            if record is not None:
                record.info[PASSWORD] = self._password
            if self.is_pooled is None:
                await_only(self._detect_pooler(options))
            options |= build_pooled_options() if self.is_pooled else {"server_settings": APPLICATION | dict(settings)}

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: sa.Connection) -> None:
            if self.is_pooled:
                connection.execute(select_settings)

        @event.listens_for(engine.sync_engine, "checkout")
        def renew(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
            if record.info.get(PASSWORD) != self._password:
                raise sa.exc.DisconnectionError

        event.listen(engine.sync_engine, "checkout", check_out)
        event.listen(engine.sync_engine, "handle_error", translate_unavailable)
        return engine

    def use_password(self, password: str | None) -> None:
        """Open all later connections with this password. Connections of an earlier one end before their next use."""
        self._password = password

    async def check_login(self) -> None:
        """Open a connection and close it. Raises NotPrimaryError, TlsFilesError and errors of the driver."""
        options = self._url.translate_connect_args(username="user")
        connection = await self._open(**options, timeout=CONNECT_TIMEOUT)
        await connection.close(timeout=CONNECT_TIMEOUT)

    async def _open(self, **options: object) -> asyncpg.Connection:
        """Open a connection to the primary. Raises NotPrimaryError, TlsFilesError and errors of the driver."""
        connection = await asyncpg.connect(**options, ssl=await self._build_tls())
        try:
            await check_role(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _build_tls(self) -> ssl.SSLContext | str:
        """Return a TLS context with libpq's meaning of the parameters and our trust settings. Raises TlsFilesError."""
        mode = self._options.get("sslmode", "prefer")
        ca, cert, key = (self._find_file(name) for name in ("sslrootcert", "sslcert", "sslkey"))
        if mode in FALLBACK_MODES or mode == "disable":
            return mode
        is_verified = mode in VERIFIED_MODES or ca is not None
        create = partial(create_context, ca, cert, key, verify=is_verified, check_hostname=mode == "verify-full")
        return await run_in_thread("load certificates for PostgreSQL", create)

    def _find_file(self, name: str) -> Path | None:
        written = self._options.get(name)
        return None if written is None else Path(written)

    async def _detect_pooler(self, options: Options) -> None:
        """Find out whether a pooler switches server sessions between transactions.

        The test opens two connections, each with an open transaction. Without a pooler the session id in the
        transaction equals the id from the connection's start. A pooler invents an id, or reports an id that fits only
        one of the two.
        """
        async with self._detection:
            if self.is_pooled is not None:
                return
            options = {name: value for name, value in options.items() if name != "async_creator_fn"}
            options |= {"statement_cache_size": 0}
            async with AsyncExitStack() as stack:
                for _ in range(2):
                    connection = await self._open(**options)
                    stack.callback(connection.terminate)
                    await stack.enter_async_context(connection.transaction())
                    session = await connection.fetchval("SELECT pg_backend_pid()")
                    if session != connection.get_server_pid():
                        self.is_pooled = True
                        log.get_logger().info("PostgreSQL answers through a pooler", database=self.name)
                        return
            self.is_pooled = False


def build_pooled_options() -> Options:
    """Return the options of connections through a pooler: unnamed statements, and only settings that poolers accept."""
    return {
        "server_settings": APPLICATION,
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": str,
    }


def check_out(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Make the pool reconnect if the server is gone or no longer the primary.

    If the driver knows that the server is gone, no query is sent: it would take three round trips.
    """
    driver_connection: asyncpg.Connection = connection.driver_connection
    if driver_connection.is_closed():
        raise sa.exc.DisconnectionError
    if driver_connection is not record.info.get(LOOKED_AT):  # A new connection has just been checked.
        record.info.update({LOOKED_AT: driver_connection, LOOKED_AT_SECONDS: monotonic()})
    elif monotonic() - record.info[LOOKED_AT_SECONDS] > ROLE_SECONDS:
        try:
            await_only(check_role(driver_connection))
        except LOST as error:
            raise sa.exc.DisconnectionError from error
        record.info[LOOKED_AT_SECONDS] = monotonic()


async def check_role(connection: asyncpg.Connection) -> None:
    """Check that the server of a connection accepts writes. Raises NotPrimaryError and errors of the driver."""
    if not await connection.fetchval(IS_WRITABLE, timeout=CONNECT_TIMEOUT):
        raise NotPrimaryError


def translate_unavailable(context: ExceptionContext) -> Exception | None:
    """Return an OperationalError if the server is unavailable, was killed or accepts no writes; otherwise None."""
    original = context.original_exception
    _hide_detail(original, context.sqlalchemy_exception)
    # The server was killed during a query: the driver would consider the connection busy for ever.
    is_stuck = isinstance(original.__cause__, asyncpg.InternalClientError)
    is_demoted = says_not_primary(original)
    if not (is_stuck or is_demoted or str(getattr(original, "sqlstate", None)).startswith(UNAVAILABLE_STATES)):
        return None
    context.is_disconnect |= is_stuck or is_demoted
    return sa.exc.OperationalError(context.statement, context.parameters, original)


def says_not_primary(error: BaseException) -> bool:
    """Return True if an error says that the server is a standby or read-only."""
    state = getattr(error, "sqlstate", None)
    return state == READ_ONLY_STATE or (state in RECOVERY_STATES and "recovery" in str(error))


def _hide_detail(original: BaseException, raised: BaseException | None) -> None:
    """Remove DETAIL from the messages of an error. It quotes the row, which may hold personal data."""
    if isinstance(original.__cause__, asyncpg.PostgresError):
        original.__cause__.detail = None
    for error in (original, raised):
        if error is not None:
            error.args = tuple(str(part).partition("\nDETAIL:")[0] for part in error.args)
