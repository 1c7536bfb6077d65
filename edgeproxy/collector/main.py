"""The collector's life: from its settings to a drained end."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import uvloop
from aiohttp import web

from edgeproxy import __version__, log
from edgeproxy.accounts import audit, customers
from edgeproxy.accounts.last_used import WRITE_SECONDS, LastUsed
from edgeproxy.collector.app import Queues, Service
from edgeproxy.collector.listener import Listener
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.publisher import Publisher
from edgeproxy.collector.reload import Reload
from edgeproxy.collector.upkeep import Upkeep
from edgeproxy.config.certificates import Unusable as BadCertificate
from edgeproxy.config.collector import Settings
from edgeproxy.config.parsers import Address
from edgeproxy.database.database import LOST, Database, Unusable, reason
from edgeproxy.directory.signing import UnusableKey
from edgeproxy.events.intake import Intake
from edgeproxy.ledger import queries
from edgeproxy.ledger.chain_audit import Broken
from edgeproxy.ledger.ingest import Ingest
from edgeproxy.ledger.names import Names
from edgeproxy.ledger.verify import verify
from edgeproxy.plural import counted
from edgeproxy.tasks import Tasks
from edgeproxy.web_listener import Bounds, WebListener, raise_descriptor_limit

STOPPING = (signal.SIGTERM, signal.SIGINT)
DENIALS_SECONDS = 60.0
"""Seconds between two times that denials are put on record."""
NAMES_SECONDS = 60.0
"""Seconds between two looks whether names are known by now."""
CONNECTIONS = Bounds(all=2000, per_address=500)
DRAIN_SECONDS = 30.0
"""Seconds that requests under way have once it is asked to end."""


class Unavailable(Exception):
    """An address cannot be listened on: a sentence for who started the collector."""


def run(settings: Settings, file: Path) -> int:
    """Collect until told to stop; the exit code: 0 after a drain, 2 where address or database cannot be used.

    `file` is where the settings are from, and are read again on SIGHUP.
    """
    log.configure("collector")
    raise_descriptor_limit()
    try:
        return uvloop.run(serve(settings, file))
    except (Unavailable, Unusable, BadCertificate, UnusableKey) as failure:
        print(f"edgeproxy: {failure}", file=sys.stderr)
        return 2


def check_ledger(settings: Settings) -> tuple[int, str]:
    """Whether the database agrees with itself; a collector may run meanwhile.

    0 and what there is in it, 1 and the first break, or 2 and why it cannot be used.
    """

    async def look() -> str:
        database = await Database.connect(settings.database, as_it_is=True)
        try:
            sums = await verify(database)
            async with database.reading(whole=True) as connection:
                entries = await audit.verify(connection)
            return f"{sums}; {counted(entries, 'audit record')}"
        finally:
            await database.close()

    try:
        return 0, uvloop.run(look())
    except (Broken, audit.Tampered) as no:
        return 1, str(no)
    except Unusable as no:
        return 2, str(no)
    except LOST as failure:
        return 2, f"the database cannot be read: {reason(failure)}"


async def serve(settings: Settings, file: Path) -> int:
    """`run` in a loop; raises Unavailable, Unusable and BadCertificate."""
    stop, asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    listening = bind(settings.listen)
    try:
        database = await Database.connect(settings.database)
        try:
            await collect(settings, file, database, listening, stop, asked)
        finally:
            await database.close()
    finally:
        listening.close()
    return 0


async def collect(
    settings: Settings,
    file: Path,
    database: Database,
    listening: socket.socket,
    stop: asyncio.Event,
    asked: asyncio.Event,
) -> None:
    """Answer on this socket until `stop` is set, then finish what has begun; read `file` again when `asked` is."""
    metrics, tasks, logger = Metrics(), Tasks(), log.get()
    publisher = None if settings.directory is None else Publisher(database, settings.directory)

    async def among(some: Iterable[str]) -> set[str]:
        try:
            async with database.reading() as connection:
                return await customers.known_among(connection, some)
        except LOST as failure:
            logger.error("customers could not be looked up, and are looked up again later", why=reason(failure))
            return set()

    names = Names(settings.customers, settings.meters, metrics, among)
    async with database.reading() as connection:
        used = await queries.names(connection)
    await names.found(*used)
    ingest = Ingest(database, names, metrics)
    settling = tasks.start("ingest", ingest.run())
    intake = Intake(database, names, metrics)
    counting = tasks.start("events", intake.run())
    service = Service(database, Queues(ingest, intake), settings, names, metrics)
    service.handlers.directory.publisher = publisher
    connections = WebListener(CONNECTIONS)
    runner = web.AppRunner(
        service.application(connections),
        access_log=None,
        shutdown_timeout=DRAIN_SECONDS,
        auto_decompress=False,  # Bodies are inflated within a bound (arrival.py).
    )
    await runner.setup()
    listener = Listener(runner, listening, connections)
    await listener.use(settings.tls)
    metrics.expiry = listener.expiry
    # What has been made up to here lives as long as the process. What batches are made of is gone right after them, and
    # to look through it again and again for what refers to itself took a third of the CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    service.unready = None
    where = address_of(listening)
    logger.info("collector serving", version=__version__, listen=str(where), database=database.name)
    tasks.start("upkeep", Upkeep(database, settings.retention, metrics).run())
    tasks.start("certificates", listener.watch())
    if publisher is not None:
        tasks.start("directory", publisher.run())
    tasks.start("denials", record_denials(service.denials))
    tasks.start("last used", record_last_used(service.handlers.ledger.last_used))
    tasks.start("names", look_for_names(names))
    tasks.start("reload", Reload(settings, service, names, listener, metrics).watch(file, asked))
    stopped = tasks.start("stop", stop.wait())
    # Without the queues nothing is of use, and whoever looks after the process should know.
    await asyncio.wait([stopped, settling, counting], return_when=asyncio.FIRST_COMPLETED)
    service.unready = "draining"
    logger.info("collector draining", seconds=DRAIN_SECONDS)
    if publisher is not None:
        publisher.end()
    await connections.end()
    listening.close()  # Whoever connects from here on should try another.
    await runner.cleanup()
    ingest.end()
    intake.end()
    await settling
    await counting
    await write_denials(service.denials)
    await write_last_used(service.handlers.ledger.last_used)
    await tasks.cancel()
    logger.info("collector stopped")


async def look_for_names(names: Names) -> None:
    """Look now and then whether names are known by now that were not, until cancelled."""
    while True:
        await asyncio.sleep(NAMES_SECONDS)
        await names.look_again()


async def record_denials(denials: audit.Denials) -> None:
    """Put denials on record every minute, until cancelled."""
    while True:
        await asyncio.sleep(DENIALS_SECONDS)
        await write_denials(denials)


async def write_denials(denials: audit.Denials) -> None:
    """Put denials on record now, or the next time where the database cannot be used."""
    try:
        await denials.write()
    except Exception as failure:  # What comes later is to be put on record too, and the rest of the end is to be done.
        log.get().error("denials could not be put on record", why=reason(failure))
        if not isinstance(failure, LOST):
            log.get().error("a fault in the collector", exc_info=failure)


async def record_last_used(last_used: LastUsed) -> None:
    """Write now and then on which day keys were used, until cancelled."""
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        await write_last_used(last_used)


async def write_last_used(last_used: LastUsed) -> None:
    """Write on which day keys were used, or the next time where the database cannot be used."""
    try:
        await last_used.write()
    except Exception as failure:
        log.get().error("when keys were used could not be written", why=reason(failure))
        if not isinstance(failure, LOST):
            log.get().error("a fault in the collector", exc_info=failure)


def bind(address: Address) -> socket.socket:
    """A socket that is bound to this address; raises Unavailable."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(where)
        except OSError:
            made.close()
            raise
    except OSError as failure:
        raise Unavailable(f"cannot listen on {address}: {failure.strerror}") from failure
    return made


def address_of(listening: socket.socket) -> Address:
    """Where a socket is bound."""
    host, port = listening.getsockname()[:2]
    return Address(host, port)
