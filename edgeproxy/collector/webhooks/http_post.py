"""One POST to a receiver that somebody else has named, with the address checked that it goes to.

The reason of a failure quotes neither the URL nor the response: either may hold a secret.
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
from edgeproxy.base.http_peer import AnswerBoundError, HttpPeer, open_session
from edgeproxy.base.name_lookup import look_up_in_thread
from edgeproxy.base.outgoing_proxy import find_proxy
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.base.shares import Claim, Places
from edgeproxy.tracing.recorder import trace_call

SECONDS_MAX = 15.0
"""Seconds that an attempt may take, from the look-up of a name to the answer."""
CONNECT_SECONDS_MAX = 5.0
GONE = 410
"""The status with which a receiver unsubscribes (Standard Webhooks)."""
LOOKUPS_MAX, OPERATOR_LOOKUPS_MAX = 200, 50
"""Look-ups at once of names that customers, and that operators, have given. One lasts as long as the system's resolver
waits, also when nobody waits for it."""
PEER = HttpPeer("the receiver", SECONDS_MAX, 64 << 10, reads_prefix=True)
HEADERS = {"Content-Type": "application/json", "User-Agent": f"edgeproxy/{__version__}"}

FindRefusal = Callable[[str], str | None]
"""Returns why an IP address must not be connected to; None: it may be."""


class DeliveryFailure(NamedTuple):
    """An attempt that failed, and why."""

    why: str
    is_final: bool = False
    """Whether another attempt is of no use."""
    wait: float | None = None
    """The seconds after which the receiver wants the next attempt; None where it did not say."""
    status: int | None = None
    """The status of the response; None where there was none."""


class Lookups:
    """The look-ups under way, of which each claim has its shares. Safe for threads."""

    def __init__(self, amount: int) -> None:
        self._places = Places(amount)
        self._lock = threading.Lock()
        self.good = ScarceGood("webhook_lookups", lambda: amount, lambda: self._places.in_use)

    def take(self, claim: Claim) -> bool:
        """Take a place for a look-up; return False where there is none."""
        with self._lock:
            key = self._places.find_exhausted(claim)
            if key is None:
                self._places.take(claim)
                return True
        self.good.record_refusal(key)
        return False

    def release(self, claim: Claim) -> None:
        """Give a place back."""
        with self._lock:
            self._places.release(claim)


OPERATOR_LOOKUPS = Lookups(OPERATOR_LOOKUPS_MAX)
"""The look-ups for channels of operators, which no customer keeps waiting."""


class ThreadResolver(AbstractResolver):
    """Looks each name up in a thread of its own.

    Whoever names a receiver may have a name server that never answers. In the threads of `asyncio.to_thread`, which are
    few, it would keep events, pages and other names waiting.
    """

    def __init__(self, lookups: Lookups, claim: Claim) -> None:
        self._lookups = lookups
        self._claim = claim

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host; raises OSError."""
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
        """Hold nothing that has to be closed."""


async def post_body(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    find_refusal: FindRefusal,
    lookups: Lookups = OPERATOR_LOOKUPS,
    claim: Claim = (),
) -> DeliveryFailure | None:
    """Post a body; return None where the response is a success. Raises TimeoutError.

    The name of the receiver is looked up as one of `lookups`, by the shares of `claim`.

    Of the response only the status and Retry-After are read. No redirection is followed. Each address is checked when
    its socket is opened, so a name that resolves otherwise the second time changes nothing. The site's proxy is asked
    for an address that was checked, and not for the name, which it would look up itself.
    """
    why: list[str] = []

    resolver = ThreadResolver(lookups, claim)
    # The site's own proxy may be anywhere.
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
    """Open the socket for an address; this is the last check of the address before it is connected to. Raises OSError.

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
    """Return an address of a receiver for the site's proxy, if all its addresses may be connected to.

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
    """Return the failure of an error; `refusals` are the reasons why addresses must not be connected to."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return DeliveryFailure("its certificate cannot be trusted")
        case aiohttp.ClientHttpProxyError():
            return DeliveryFailure(f"the site's proxy answers {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return DeliveryFailure("the site's proxy cannot be reached")
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
