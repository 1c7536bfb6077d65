"""One POST to a receiver that a customer or an operator has named. The target address is checked.

The reason of a failure quotes neither the URL nor the response, because they may contain secrets.
"""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from edgeproxy import __version__
from edgeproxy.base.http_answer import parse_retry_after
from edgeproxy.base.http_peer import AnswerBoundError, HttpPeer, OutgoingProxyError, open_session
from edgeproxy.base.name_lookup import look_up_in_thread
from edgeproxy.base.outgoing_proxy import find_proxy
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.base.shares import Claim, Places
from edgeproxy.tracing.recorder import trace_call

SECONDS_MAX = 15.0
"""Seconds for an attempt, from the name look-up to the answer."""
CONNECT_SECONDS_MAX = 5.0
GONE = 410
"""The status of a receiver that unsubscribes (Standard Webhooks)."""
LOOKUPS_MAX, OPERATOR_LOOKUPS_MAX = 200, 50
"""Concurrent look-ups of names given by customers and by operators.

A look-up lasts until the system's resolver gives up, even if its caller has given up.
"""
PEER = HttpPeer("the receiver", SECONDS_MAX, 64 << 10, reads_prefix=True)
HEADERS = {"Content-Type": "application/json", "User-Agent": f"edgeproxy/{__version__}"}

FindRefusal = Callable[[str], str | None]
"""Returns the reason why an IP address must not be used, or None."""


class DeliveryFailure(NamedTuple):
    """A failed attempt with the reason."""

    why: str
    is_final: bool = False
    """True if another attempt is useless."""
    wait: float | None = None
    """The seconds until the receiver wants the next attempt; None if it did not say."""
    status: int | None = None
    """The status of the response; None if there was none."""


class Lookups:
    """The running look-ups, with shares per claim. Thread-safe."""

    def __init__(self, amount: int) -> None:
        self._places = Places(amount)
        self._lock = threading.Lock()
        self.good = ScarceGood("webhook_lookups", lambda: amount, lambda: self._places.in_use)

    def take(self, claim: Claim) -> bool:
        """Take a place for a look-up. Return False if none is left."""
        with self._lock:
            key = self._places.find_exhausted(claim)
            if key is None:
                self._places.take(claim)
                return True
        self.good.record_refusal(key)
        return False

    def release(self, claim: Claim) -> None:
        """Release a place."""
        with self._lock:
            self._places.release(claim)


OPERATOR_LOOKUPS = Lookups(OPERATOR_LOOKUPS_MAX)
"""Look-ups for operators' channels. Customers cannot delay them."""


class ThreadResolver(AbstractResolver):
    """Looks up each name in its own thread.

    A receiver's name server may never answer. In the few threads of `asyncio.to_thread`, such a look-up would delay
    events, pages and other names.
    """

    def __init__(self, lookups: Lookups, claim: Claim) -> None:
        self._lookups = lookups
        self._claim = claim

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError."""
        infos = await look_up_in_thread(
            "look up a receiver",
            lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG),
            lambda: self._lookups.take(self._claim),
            lambda: self._lookups.release(self._claim),
        )
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=flags)
            for kind, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


async def post_body(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    find_refusal: FindRefusal,
    lookups: Lookups = OPERATOR_LOOKUPS,
    claim: Claim = (),
) -> DeliveryFailure | None:
    """Post a body. Return None if the response is a success. Raises TimeoutError.

    The receiver's name is looked up within `lookups`, by the shares of `claim`. Only the status and Retry-After of the
    response are read. Redirects are not followed. Each address is checked when its socket is opened, so a changed DNS
    answer cannot bypass the check. The site's proxy gets a checked address instead of the name, which it would look up
    itself.
    """
    why: list[str] = []

    resolver = ThreadResolver(lookups, claim)
    # The site's own proxy may be at any address.
    opener = None if find_proxy(url) is not None else partial(open_checked_socket, find_refusal, why)
    timeout = aiohttp.ClientTimeout(total=SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX)
    try:
        async with open_session(
            PEER,
            timeout=timeout,
            resolver=resolver,
            socket_factory=opener,
            force_close=True,
            find_target=partial(find_checked_address, resolver, find_refusal, why),
        ) as session:
            return await _send(session, url, body, headers)
    except TimeoutError:
        raise
    except AnswerBoundError as error:
        return DeliveryFailure(str(error))
    except aiohttp.ClientError as error:
        return describe_failure(error, why)


def open_checked_socket(find_refusal: FindRefusal, refusals: list[str], info: AddrInfoType) -> socket.socket:
    """Open the socket for an address, after a last check of the address. Raises OSError.

    The reason of a refusal is added to `refusals`.
    """
    family, kind, protocol, _, address = info
    refusal = find_refusal(str(address[0]))
    if refusal is not None:
        refusals.append(refusal)
        raise OSError(refusal)
    return socket.socket(family, kind, protocol)


async def find_checked_address(
    resolver: ThreadResolver, find_refusal: FindRefusal, refusals: list[str], host: str, port: int
) -> str:
    """Return an address of a receiver for the site's proxy, if all of its addresses are permitted.

    The reason of a refusal is added to `refusals`. Raises OSError and aiohttp.ClientConnectionError.
    """
    addresses = [str(one["host"]) for one in await resolver.resolve(host, port, socket.AF_UNSPEC)]
    for address in addresses:
        refusal = find_refusal(address)
        if refusal is not None:
            refusals.append(refusal)
            raise aiohttp.ClientConnectionError(refusal)
    return addresses[0]


def describe_failure(error: aiohttp.ClientError, refusals: Sequence[str]) -> DeliveryFailure:
    """Return the failure for an error. `refusals` are the reasons why addresses are not permitted."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return DeliveryFailure("its certificate cannot be trusted")
        case OutgoingProxyError():  # Customers read the reason: the log has the address of the proxy.
            return DeliveryFailure(f"the site's proxy {error.problem}")
        case aiohttp.ClientConnectionError() if refusals:
            return DeliveryFailure(refusals[0])
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or "no connection"
            return DeliveryFailure(refusals[0] if refusals else f"it cannot be reached: {reason}")
        case _:
            return DeliveryFailure(f"it does not answer as HTTP has it: {type(error).__name__}")


async def _send(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> DeliveryFailure | None:
    with trace_call("POST", {"http.request.method": "POST"}) as span:
        async with session.post(url, data=body, headers={**HEADERS, **headers}, allow_redirects=False) as response:
            if span is not None:
                span.set_status(response.status)
            if 200 <= response.status < 300:
                return None
            wait = parse_retry_after(response.headers.get("Retry-After"))
            return DeliveryFailure(f"it answers {response.status}", response.status == GONE, wait, response.status)
