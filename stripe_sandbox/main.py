"""The process of the sandbox, from its address to its end."""

import asyncio
import errno
import logging
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web

from stripe_sandbox.controls import Controls
from stripe_sandbox.delivery import Deliveries
from stripe_sandbox.description import load_description
from stripe_sandbox.due import DueWork
from stripe_sandbox.idempotency import IdempotencyKeys
from stripe_sandbox.objects.webhooks import replace_endpoint
from stripe_sandbox.operations import WORK
from stripe_sandbox.page_guard import refuse_foreign_pages
from stripe_sandbox.pages import Pages
from stripe_sandbox.rates import Rates
from stripe_sandbox.server import BODY_MAX, Server
from stripe_sandbox.state import State
from stripe_sandbox.store import transaction
from stripe_sandbox.transaction import Transaction

LOG = logging.getLogger("stripe-sandbox")
DRAIN_SECONDS = 2.0
TICK_SECONDS = 0.1
"""Seconds between two checks of the timers."""
REPORT_SECONDS = 60.0
PURGE_SECONDS = 3600.0
"""Seconds between two purges of idempotency keys."""


LoopError = dict[str, Any]
"""The description of an error that asyncio passes to a loop's handler."""


class Address(NamedTuple):
    """The IP address to listen on, and the port, 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    """Serve until a signal to stop, and return the exit code: 0, or 2 if the address or the file cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        asyncio.run(
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
        print(f"stripe-sandbox: cannot listen on {address}: {error.strerror or error}", file=sys.stderr)
        return 2
    except sqlite3.Error as error:
        print(f"stripe-sandbox: {file} cannot be used: {error}", file=sys.stderr)
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
    asyncio.get_running_loop().set_exception_handler(limit_reports())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.create_server(tuple(address), family=family)
    bound = Address(*listening.getsockname()[:2])
    state = State(file, load_description(), f"http://{bound}", usage_lag, rates != "off")
    state.account.requires_email = requires_email
    if webhook is not None:
        with transaction(state.connection):
            replace_endpoint(Transaction(state.account, False, int(state.clock())), *webhook)
    deliveries = Deliveries(state.account, state.clock)
    server = Server(load_description(), state, Rates(rates), takes_any_version=takes_any_version)
    application = web.Application(middlewares=[refuse_foreign_pages], client_max_size=BODY_MAX)
    due = DueWork(state.account, WORK)
    Controls(state, deliveries, due).add_routes(application)
    Pages(state).add_routes(application)
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    work = asyncio.gather(run_timers(state, due), run_deliveries(state, deliveries))
    work.add_done_callback(lambda _: stop.set())  # A failure of either ends the sandbox, with its traceback below.
    LOG.info("serving on %s, state %s, rates %s", bound, file, rates)
    await stop.wait()
    await runner.cleanup()
    work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        pass
    finally:
        await deliveries.close()
        state.connection.close()
    LOG.info("stopped")


def limit_reports() -> Callable[[asyncio.AbstractEventLoop, LoopError], None]:
    """Return the handler of the loop's errors. It reports at most once in REPORT_SECONDS that descriptors are used up.

    asyncio reports each failed accept with a traceback, up to 128 in a second.
    """
    reported = -REPORT_SECONDS

    def report(loop: asyncio.AbstractEventLoop, context: LoopError) -> None:
        nonlocal reported
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif loop.time() >= reported + REPORT_SECONDS:
            reported = loop.time()
            LOG.error("connections wait, because the process has no more descriptors: %s", error)

    return report


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
