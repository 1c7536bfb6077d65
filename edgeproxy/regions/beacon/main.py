"""The beacon's life: from its settings to its end."""

import asyncio
import signal
import socket
import sys

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.base import event_loop, log
from edgeproxy.base.core_dumps import forbid_core_dumps
from edgeproxy.base.descriptor_limit import raise_descriptor_limit
from edgeproxy.base.exit_deadline import end_after_signals
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.trust import TlsFiles, TlsFilesError
from edgeproxy.base.web_listener import Bounds, WebListener
from edgeproxy.config.addresses import Address
from edgeproxy.config.collector.regions import BeaconSettings
from edgeproxy.regions.beacon.app import Beacon
from edgeproxy.regions.beacon.collector import Collector
from edgeproxy.regions.beacon.countries import Countries, InvalidCountryDatabaseError

CONNECTIONS = Bounds(all=4096, per_address=256)
DRAIN_SECONDS = 5.0
"""Seconds that open requests have after a signal to end."""
END_SECONDS = 15.0
"""Seconds until a stopping process is ended by force. Service managers wait for 20 s."""


def run(settings: BeaconSettings) -> int:
    """Serve until a signal to stop, and return the exit code: 0, or 2 if an address or a file is unusable."""
    log.configure("beacon")
    raise_descriptor_limit()
    forbid_core_dumps()
    try:
        country = settings.country
        countries = Countries(country.file) if country is not None and country.file is not None else None
        tls = TlsFiles.from_settings(settings.tls)
        tls.create_context()
        event_loop.run(serve(settings, tls, countries, bind(settings.listen)))
    except (InvalidCountryDatabaseError, TlsFilesError, OSError) as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 2
    return 0


async def serve(settings: BeaconSettings, tls: TlsFiles, countries: Countries | None, listening: socket.socket) -> None:
    """Serve on this socket until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    end_after_signals((signal.SIGTERM, signal.SIGINT), lambda: END_SECONDS)
    tasks, logger, connections = Tasks(), log.get_logger(), WebListener(CONNECTIONS)
    collector = Collector(settings.collector, settings.token or "", tls, settings.tls.server_name)
    beacon = Beacon(settings, collector, countries)
    runner = web.AppRunner(beacon.create_application(connections), access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    connections.accept(runner, listening)
    tasks.start("reports", collector.run(settings.every))
    if settings.secret is None:
        logger.warning("tickets are good at this beacon alone, and until it ends: set a secret that all have")
    logger.info("beacon serving", version=__version__, listen=str(Address(*listening.getsockname()[:2])))
    await stop.wait()
    await connections.end()
    listening.close()
    await runner.cleanup()
    await tasks.cancel()
    await collector.close()
    logger.info("beacon stopped")


def bind(address: Address) -> socket.socket:
    """Return a socket bound to this address; raises OSError."""
    try:
        return socket.create_server(address, family=socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
