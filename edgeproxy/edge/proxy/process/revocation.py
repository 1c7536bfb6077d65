"""The end of open requests of a revoked key or of a removed user, with the error that a new request would get.

After each change of directory customers, the supervisor is asked again for the keys of their open requests, streams and
tunnels. After a reload, the keys and the users of the files are looked up in the new ones. This costs requests nothing.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
from edgeproxy.edge.proxy.metering.labels import NO_LABEL
from edgeproxy.edge.proxy.observation.exchange_states import AWAITS_KEY
from edgeproxy.edge.proxy.routing.identity import KeyHolder, UnresolvedIdentity
from edgeproxy.edge.proxy.transport.turns import TURN_SECONDS
from edgeproxy.edge.proxy.transport.websocket import POLICY_VIOLATION

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding

RETRY_SECONDS = 0.25
"""Seconds until the next look-up if the last one gave no answer."""
RETRIES_MAX = 40
"""Maximum number of look-ups. While the supervisor is gone, a revocation is unknown."""
CLOSE_SECONDS = 1.0
"""Seconds that both sides of a WebSocket have to close it."""
ENDING = (401, 402, 403)
"""Statuses of refusals because of the sender."""


def recheck_customers(runtime: "Runtime", customers: Collection[str] | None) -> None:
    """Look up again the keys of exchanges in progress for these directory customers (None: for any customer)."""
    if not runtime.snapshot.directory.closes_revoked:
        return
    for exchange, binding in _list_exchanges(runtime):
        identity = exchange.identity
        if binding.customer == NO_LABEL or not isinstance(identity, UnresolvedIdentity):
            continue
        if customers is None or binding.customer in customers:
            _Recheck(runtime, exchange, identity).ask()


def recheck_files(runtime: "Runtime") -> None:
    """End the exchanges whose user the new files no longer have, or have with another password.

    Likewise those of a key that is in the files no longer, unless `directory` lets open requests of such keys go on.
    """
    runtime.tasks.start("look up open requests in the new files", _recheck_in_turns(runtime))


async def _recheck_in_turns(runtime: "Runtime") -> None:
    """Look the exchanges up in many turns of the loop: each takes 7 µs, and 100 µs if it ends."""
    snapshot = runtime.snapshot
    find_hashes = cache(snapshot.find_hashes)
    exchanges = [exchange for exchange, _ in _list_exchanges(runtime)]
    while exchanges and runtime.snapshot is snapshot:  # A newer configuration has its own look-ups.
        turn_ends = monotonic() + TURN_SECONDS
        while exchanges:
            exchange = exchanges.pop()
            if exchange.client.exchange is exchange and exchange.binding is not None:
                _recheck_in_files(runtime, exchange, exchange.binding, find_hashes)
            if monotonic() >= turn_ends:
                break
        await asyncio.sleep(0)


def _recheck_in_files(
    runtime: "Runtime",
    exchange: Forwarding,
    binding: "RouteBinding",
    find_hashes: "Callable[[Route], Mapping[bytes, bytes]]",
) -> None:
    directory, route, who = runtime.snapshot.directory, binding.route, exchange.identity
    if route.users is not None:
        user = binding.user.encode()
        if user and find_hashes(route).get(user) != route.users.hashes[user]:
            end_exchange(exchange, route.users.create_refusal("password"))
    elif binding.customer != NO_LABEL and isinstance(who, KeyHolder) and directory.closes_revoked:
        successor = directory.find_successor(who, route)
        if isinstance(successor, UnresolvedIdentity):
            _Recheck(runtime, exchange, successor).ask()
        elif isinstance(successor, RejectedError):
            end_exchange(exchange, successor)


def _list_exchanges(runtime: "Runtime") -> Iterator[tuple[Forwarding, "RouteBinding"]]:
    """Yield the exchanges in progress that have a sender, with their bindings."""
    for exchange in [exchange for client in runtime.connections.clients for exchange in client.list_exchanges()]:
        if isinstance(exchange, Forwarding) and exchange.binding is not None:
            yield exchange, exchange.binding


class _Recheck:
    """An exchange whose key is looked up again. As a Waiter it is called with the answer."""

    def __init__(self, runtime: "Runtime", exchange: Forwarding, holder: UnresolvedIdentity) -> None:
        self._runtime = runtime
        self._exchange = exchange
        self._holder = holder
        self._tries = 0

    def ask(self) -> None:
        """Look up the key."""
        self._tries += 1
        is_requested = self._is_open and self._runtime.key_lookup.look_up(self._holder.digest, self)
        if self._is_open and not is_requested and self._tries < RETRIES_MAX:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.ask)

    def resume(self) -> None:
        """End the exchange if its key is no longer valid."""
        exchange, runtime = self._exchange, self._runtime
        if not self._is_open or exchange.route is None:
            return
        try:
            identity = runtime.snapshot.directory.refresh(self._holder, exchange.route, monotonic() + runtime.offset)
            if identity is None:
                self.ask()
            else:
                identity.bind(exchange.route)
        except RejectedError as error:
            error.with_traceback(None)  # Senders may share the error.
            if error.status in ENDING:
                end_exchange(exchange, error)

    @property
    def _is_open(self) -> bool:
        """True if the exchange is still active, and not about to identify its sender itself."""
        exchange = self._exchange
        return exchange.client.exchange is exchange and exchange.state is not AWAITS_KEY


def end_exchange(exchange: Forwarding, why: RejectedError) -> None:
    """End an exchange: a WebSocket with a close frame, all others at once."""
    client = exchange.client
    server = exchange.server
    if server is None or server.tunnel is None:
        exchange.fail(RejectedError(why.status, why.detail, fields=why.fields, code=why.code))
        return
    server.tunnel.send_close(POLICY_VIOLATION)

    def cut() -> None:
        if client.exchange is exchange:
            client.abort()

    asyncio.get_running_loop().call_later(CLOSE_SECONDS, cut)
