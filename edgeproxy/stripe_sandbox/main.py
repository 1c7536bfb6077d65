"""The process of the sandbox, from its address to its end."""

import asyncio
import signal
import socket
import sqlite3
import sys
from typing import NamedTuple

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.base import event_loop, log
from edgeproxy.base.descriptor_limit import raise_descriptor_limit
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.web_listener import Bounds, WebListener
from edgeproxy.config.addresses import Address
from edgeproxy.stripe_sandbox.controls import Controls
from edgeproxy.stripe_sandbox.delivery import Deliveries
from edgeproxy.stripe_sandbox.description import load_description
from edgeproxy.stripe_sandbox.due import DueWork
from edgeproxy.stripe_sandbox.idempotency import IdempotencyKeys
from edgeproxy.stripe_sandbox.objects.webhooks import replace_endpoint
from edgeproxy.stripe_sandbox.operations import WORK
from edgeproxy.stripe_sandbox.page_guard import refuse_foreign_pages
from edgeproxy.stripe_sandbox.pages import Pages
from edgeproxy.stripe_sandbox.rates import Rates
from edgeproxy.stripe_sandbox.server import BODY_MAX, Server
from edgeproxy.stripe_sandbox.state import State
from edgeproxy.stripe_sandbox.store import transaction
from edgeproxy.stripe_sandbox.transaction import Transaction

CONNECTIONS = Bounds(all=2000, per_address=2000)
DRAIN_SECONDS = 2.0
TICK_SECONDS = 0.1
"""Seconds between two checks of the timers."""
PURGE_SECONDS = 3600.0
"""Seconds between two purges of idempotency keys."""


class Webhook(NamedTuple):
    """An endpoint that gets all events in test mode."""

    url: str
    secret: str


def run(
    address: Address,
    file: str,
    rates: str,
    usage_lag: float,
    *,
    requires_email: bool,
    takes_any_version: bool,
    webhook: Webhook | None = None,
) -> int:
    """Serve until a signal to stop, and return the exit code: 0, or 2 where the address or the file cannot be used."""
    log.configure("stripe-sandbox")
    raise_descriptor_limit()
    try:
        event_loop.run(
            serve(
                address,
                file,
                rates,
                usage_lag,
                requires_email=requires_email,
                takes_any_version=takes_any_version,
                webhook=webhook,
            )
        )
    except OSError as error:
        print(f"edgeproxy: cannot listen on {address}: {error.strerror or error}", file=sys.stderr)
        return 2
    except sqlite3.Error as error:
        print(f"edgeproxy: {file} cannot be used: {error}", file=sys.stderr)
        return 2
    return 0


async def serve(
    address: Address,
    file: str,
    rates: str,
    usage_lag: float,
    *,
    requires_email: bool,
    takes_any_version: bool,
    webhook: Webhook | None = None,
) -> None:
    """Serve in the running loop; raises OSError and sqlite3.Error."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.create_server(address, family=family)
    bound = Address(*listening.getsockname()[:2])
    state = State(file, load_description(), f"http://{bound}", usage_lag, rates != "off")
    state.account.requires_email = requires_email
    if webhook is not None:
        with transaction(state.connection):
            replace_endpoint(Transaction(state.account, False, int(state.clock())), *webhook)
    deliveries = Deliveries(state.account, state.clock)
    server = Server(load_description(), state, Rates(rates), takes_any_version=takes_any_version)
    tasks, logger, connections = Tasks(), log.get_logger(), WebListener(CONNECTIONS)
    middlewares = [connections.track_request, refuse_foreign_pages]
    application = web.Application(middlewares=middlewares, client_max_size=BODY_MAX)
    due = DueWork(state.account, WORK)
    Controls(state, deliveries, due).add_routes(application)
    Pages(state).add_routes(application)
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    connections.accept(runner, listening)
    tasks.start("due", run_timers(state, due))
    tasks.start("deliveries", run_deliveries(state, deliveries))
    logger.info("Stripe sandbox serving", version=__version__, listen=str(bound), state=file, rates=rates)
    await stop.wait()
    await connections.end()
    listening.close()
    await runner.cleanup()
    await tasks.cancel()
    await deliveries.close()
    state.connection.close()
    logger.info("Stripe sandbox stopped")


async def run_timers(state: State, due: DueWork) -> None:
    """Run timers that are due, for ever."""
    keys, purged = IdempotencyKeys(state.connection), 0.0
    while True:
        if state.clock() - purged > PURGE_SECONDS:
            purged = state.clock()
            keys.purge(int(purged))
        more = due.run_due(state.clock())
        await asyncio.sleep(0 if more else TICK_SECONDS)


async def run_deliveries(state: State, deliveries: Deliveries) -> None:
    """Deliver events, for ever: at once when there may be new ones, else now and then."""
    while True:
        state.woken.clear()
        if not await deliveries.attempt_due():
            try:
                await asyncio.wait_for(state.woken.wait(), TICK_SECONDS)
            except TimeoutError:
                pass
