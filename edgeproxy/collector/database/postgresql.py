"""Connections to PostgreSQL: to the primary alone, directly or through a pooler, as many as the URL permits.

A connection counts only while its server takes changes. After a fail-over by address the old server may stay up, as a
standby or read-only: its connections are ended, and new ones lead to the new primary. `Server.check_role` looks at
a new connection, and again at a connection that was looked at more than ROLE_SECONDS ago. An error of a
statement that says the same ends the connection as well.

A pooler by transaction, such as PgBouncer, gives each transaction any of its own connections to the server. Statements
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
"""Seconds until a server must have answered."""
STATEMENT_TIMEOUT, JOB_STATEMENT_TIMEOUT = 60.0, 300.0
"""Seconds that a statement may take, and one that a job reads by. Half as long is waited for a connection that others
use."""
APPLICATION = {"application_name": "edgeproxy collector"}
SERVER_SETTINGS = {
    # What was acknowledged must be on disk, whatever the server does for others.
    "synchronous_commit": "on",
    # Row-level security makes short statements look dear, and to compile one takes up to a second.
    "jit": "off",
}
"""The settings of sessions, or of each transaction through a pooler."""
JOB_SERVER_SETTINGS = SERVER_SETTINGS | {"max_parallel_workers_per_gather": "0"}
"""The settings for jobs that read: a job that takes its time leaves cores to who waits."""
READERS_MAX = 4
"""Connections for reading, and as many for what jobs read: pages wait for none of theirs."""
ROLE_SECONDS = 1.0
"""Seconds for which a connection counts as one to the primary after its server said so."""
IS_WRITABLE = "SELECT NOT (pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool)"
"""The statement that asks a server whether it takes changes."""
LOOKED_AT, LOOKED_AT_SECONDS = "looked at", "looked at seconds"
"""Of the record of a connection: the driver's connection whose role is known, and the time of that."""
LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""Errors of a connection that is of no use any more."""
FALLBACK_MODES = ("allow", "prefer")
"""Values of `sslmode` with which the server decides about TLS."""
VERIFIED_MODES = ("verify-ca", "verify-full")
UNAVAILABLE_STATES = ("08", "53", "57P")
"""Prefixes of SQLSTATEs of an unavailable server: no connection, no resources, server starting or stopping."""
READ_ONLY_STATE = "25006"
RECOVERY_STATES = ("55000", "40001")
"""SQLSTATEs that a standby shares with other faults; its messages say "recovery"."""


Options = dict[str, Any]
"""Options of the driver and of SQLAlchemy's dialect of it."""


class NotPrimaryError(ConnectionError):
    """The server takes no changes: it is a standby or read-only."""

    def __init__(self) -> None:
        super().__init__("PostgreSQL at this address is a standby or read-only, not the primary")


class Connections(NamedTuple):
    """How many connections a collector may have at once, by use. Beside these one writes."""

    readers: int
    """Connections for reading, and as many for what jobs read."""
    locks: int
    """Connections that hold locks of jobs, each while its job does something."""

    @classmethod
    def divide(cls, count: int) -> "Connections":
        """Divide this number of connections."""
        readers = max(2, min(READERS_MAX, (count - 1) // 6))
        return cls(readers, count - 1 - 2 * readers)


class Server:
    """The PostgreSQL of a URL, of which `config.collector.database_url` has read the parameters."""

    def __init__(self, url: URL) -> None:
        options = {name: str(value) for name, value in url.query.items()}
        self._url = url.set(drivername="postgresql+asyncpg", query={})
        self._options = options
        self.name = url.set(query={}).render_as_string(hide_password=True)
        """The URL without its password and parameters."""
        self.is_pooled: bool | None = {"transaction": True, "none": False}.get(options.get("pooler", "auto"))
        """Whether a pooler gives transactions any of its connections; None: no connection has shown it yet."""
        self._detection = asyncio.Lock()
        self.connections = Connections.divide(int(options.get("connections", CONNECTIONS_DEFAULT)))

    def create_engines(self) -> tuple[AsyncEngine, AsyncEngine, AsyncEngine, AsyncEngine]:
        """Return the connections that write, that read, by which jobs read, and that hold locks of jobs."""
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
        """Return connections that are kept open; `more` are opened where they are needed, and ended again.

        `patience`: the seconds that a statement may take, of which half are waited for a connection; None: any time.
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
        def prepare(_dialect: object, _record: object, _args: object, options: Options) -> None:
            if self.is_pooled is None:
                await_only(self._detect_pooler(options))
            options |= build_pooled_options() if self.is_pooled else {"server_settings": APPLICATION | dict(settings)}

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: sa.Connection) -> None:
            if self.is_pooled:
                connection.execute(select_settings)

        event.listen(engine.sync_engine, "checkout", check_out)
        event.listen(engine.sync_engine, "handle_error", translate_unavailable)
        return engine

    async def _open(self, **options: object) -> asyncpg.Connection:
        """Open a connection to the primary. Raises NotPrimaryError, TlsFilesError, and errors of the driver."""
        connection = await asyncpg.connect(**options, ssl=await self._build_tls())
        try:
            await check_role(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _build_tls(self) -> ssl.SSLContext | str:
        """Return TLS as libpq reads the parameters, and trust as all connections have it. Raises TlsFilesError."""
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
        """Find out whether transactions of one connection go to one session of the server.

        A server names the same session at the beginning of a connection and in a transaction, on two connections that
        each have a transaction open. A pooler has a number of its own, or one that only one of both has.
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
    """Return the options of connections through a pooler: statements without names, and no setting that it refuses."""
    return {
        "server_settings": APPLICATION,
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": str,
    }


def check_out(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Have the pool connect anew where the server has gone, or is not the primary any more.

    The driver has heard of a server that has gone: to ask would take three round trips.
    """
    driver_connection: asyncpg.Connection = connection.driver_connection
    if driver_connection.is_closed():
        raise sa.exc.DisconnectionError
    if driver_connection is not record.info.get(LOOKED_AT):  # It is new, and was looked at.
        record.info.update({LOOKED_AT: driver_connection, LOOKED_AT_SECONDS: monotonic()})
    elif monotonic() - record.info[LOOKED_AT_SECONDS] > ROLE_SECONDS:
        try:
            await_only(check_role(driver_connection))
        except LOST as error:
            raise sa.exc.DisconnectionError from error
        record.info[LOOKED_AT_SECONDS] = monotonic()


async def check_role(connection: asyncpg.Connection) -> None:
    """Return if the server of a connection takes changes. Raises NotPrimaryError, and errors of the driver."""
    if not await connection.fetchval(IS_WRITABLE, timeout=CONNECT_TIMEOUT):
        raise NotPrimaryError


def translate_unavailable(context: ExceptionContext) -> Exception | None:
    """Return an OperationalError where the server is unavailable, was killed or takes no changes; else None."""
    original = context.original_exception
    _hide_detail(original, context.sqlalchemy_exception)
    # The server was killed while the connection waited for it: the driver takes it for in use ever after.
    is_stuck = isinstance(original.__cause__, asyncpg.InternalClientError)
    is_demoted = says_not_primary(original)
    if not (is_stuck or is_demoted or str(getattr(original, "sqlstate", None)).startswith(UNAVAILABLE_STATES)):
        return None
    context.is_disconnect |= is_stuck or is_demoted
    return sa.exc.OperationalError(context.statement, context.parameters, original)


def says_not_primary(error: BaseException) -> bool:
    """Return whether an error says that the server is a standby, or read-only."""
    state = getattr(error, "sqlstate", None)
    return state == READ_ONLY_STATE or (state in RECOVERY_STATES and "recovery" in str(error))


def _hide_detail(original: BaseException, raised: BaseException | None) -> None:
    """Take the DETAIL out of the messages of an error: it quotes the row, which may be about a person."""
    if isinstance(original.__cause__, asyncpg.PostgresError):
        original.__cause__.detail = None
    for error in (original, raised):
        if error is not None:
            error.args = tuple(str(part).partition("\nDETAIL:")[0] for part in error.args)
