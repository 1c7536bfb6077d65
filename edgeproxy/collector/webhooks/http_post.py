"""One POST to a receiver that somebody else has named, with the address checked that it goes to.

The reason of a failure quotes neither the URL nor the response: either may hold a secret.
"""

import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

import aiohttp
from aiohappyeyeballs import AddrInfoType

from edgeproxy import __version__

SECONDS_MAX = 15.0
"""Seconds that an attempt may take, from the look-up of a name to the answer."""
CONNECT_SECONDS_MAX = 5.0
GONE = 410
"""The status with which a receiver unsubscribes (Standard Webhooks)."""
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


async def post_body(
    url: str, body: bytes, headers: Mapping[str, str], find_refusal: FindRefusal
) -> DeliveryFailure | None:
    """Post a body; return None where the response is a success. Raises TimeoutError.

    Of the response only the status and Retry-After are read. No redirection is followed, and no proxy is used. Each
    address is checked when its socket is opened, so a name that resolves otherwise the second time changes nothing.
    """
    why: list[str] = []

    def open_socket(info: AddrInfoType) -> socket.socket:
        """Open the socket for an address; this is the last check of the address before it is connected to."""
        family, kind, protocol, _, address = info
        refusal = find_refusal(str(address[0]))
        if refusal is not None:
            why.append(refusal)
            raise OSError(refusal)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(socket_factory=open_socket, force_close=True)
    timeout = aiohttp.ClientTimeout(total=SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, data=body, headers={**HEADERS, **headers}, allow_redirects=False) as response,
        ):
            return _parse_response(response.status, response.headers.get("Retry-After", ""))
    except TimeoutError:
        raise
    except aiohttp.ClientConnectorCertificateError:
        return DeliveryFailure("its certificate cannot be trusted")
    except aiohttp.ClientConnectorError as error:
        return DeliveryFailure(why[0] if why else f"it cannot be reached: {error.os_error.strerror or 'no connection'}")
    except aiohttp.ClientError as error:
        return DeliveryFailure(f"it does not answer as HTTP has it: {type(error).__name__}")


def _parse_response(status: int, retry_after: str) -> DeliveryFailure | None:
    if 200 <= status < 300:
        return None
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9 else None
    return DeliveryFailure(f"it answers {status}", status == GONE, wait, status)
