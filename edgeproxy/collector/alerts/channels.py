"""Sending a message by a channel, once: over HTTP or by mail. What comes of it is a value, never an exception.

Why an attempt failed is told without anything of the channel's URL or of what a receiver says: either may be secret.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import aiosmtplib
from aiosmtplib.errors import SMTPException, SMTPRecipientsRefused, SMTPResponseException

from edgeproxy import __version__
from edgeproxy.collector.alerts import message as forms
from edgeproxy.collector.alerts.address_policy import find_refusal
from edgeproxy.collector.alerts.message import AlertMessage
from edgeproxy.collector.alerts.signature import sign_webhook
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.collector.alerts import Channel, parse_mail_server

SECONDS_MAX = 15.0
"""Seconds that an attempt may take, from the look-up of a name to the answer."""
CONNECT_SECONDS_MAX = 5.0
GONE = 410
"""The status by which a receiver says that it wants nothing any more (Standard Webhooks)."""
PERMANENT = range(500, 600)
"""Codes of SMTP by which a server refuses a recipient for good (RFC 5321 section 4.2.1)."""
HEADERS = {"Content-Type": "application/json", "User-Agent": f"edgeproxy/{__version__}"}


class DeliveryFailure(NamedTuple):
    """An attempt that failed: why, whether another one is of no use, and for how long to wait, if that was said."""

    why: str
    is_final: bool = False
    wait: float | None = None


async def send_message(
    channel: Channel, message: AlertMessage, recipient: str | None, now: float
) -> DeliveryFailure | None:
    """Send a message once; None where it was taken. `recipient` gets the mail instead of whom the channel names."""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await SENDERS[channel.kind](channel, message, recipient, now)
    except TimeoutError:
        return DeliveryFailure(f"there was no answer within {SECONDS_MAX:g} s")
    except Exception as error:  # One message must not be in the way of all others.
        return DeliveryFailure(f"it could not be sent: {type(error).__name__}")


async def _send_webhook(channel: Channel, message: AlertMessage, _: str | None, now: float) -> DeliveryFailure | None:
    body = forms.format_webhook(message)
    return await _post_body(channel, channel.webhook, body, sign_webhook(message.name, int(now), body, channel.secret))


async def _send_slack(channel: Channel, message: AlertMessage, _: str | None, __: float) -> DeliveryFailure | None:
    return await _post_body(channel, channel.slack, forms.format_slack(message))


async def _send_pagerduty(channel: Channel, message: AlertMessage, _: str | None, __: float) -> DeliveryFailure | None:
    return await _post_body(channel, channel.url, forms.format_pagerduty(message, channel.pagerduty or ""))


async def _post_body(
    channel: Channel, url: str | None, body: bytes, headers: dict[str, str] | None = None
) -> DeliveryFailure | None:
    """Post a body; what is answered beside its status is not read, and no redirection is followed."""
    assert url is not None
    host = urlsplit(url).hostname or ""
    why: list[str] = []

    def open_socket(info: Any) -> socket.socket:
        """Make the socket for an address, of which this is the last look before it is connected to."""
        family, kind, protocol, _, address = info
        refusal = find_refusal(str(address[0]), host, private=channel.private)
        if refusal is not None:
            why.append(refusal)
            raise OSError(refusal)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(socket_factory=open_socket, force_close=True)
    timeout = aiohttp.ClientTimeout(total=SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, data=body, headers={**HEADERS, **(headers or {})}, allow_redirects=False) as answer,
        ):
            return _parse_answer(answer.status, answer.headers.get("Retry-After", ""))
    except TimeoutError:
        raise
    except aiohttp.ClientConnectorCertificateError:
        return DeliveryFailure("its certificate cannot be trusted")
    except aiohttp.ClientConnectorError as error:
        return DeliveryFailure(why[0] if why else f"it cannot be reached: {error.os_error.strerror or 'no connection'}")
    except aiohttp.ClientError as error:
        return DeliveryFailure(f"it does not answer as HTTP has it: {type(error).__name__}")


def _parse_answer(status: int, retry_after: str) -> DeliveryFailure | None:
    if 200 <= status < 300:
        return None
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9 else None
    return DeliveryFailure(f"it answers {status}", status == GONE, wait)


async def _send_mail(
    channel: Channel, message: AlertMessage, recipient: str | None, _: float
) -> DeliveryFailure | None:
    server = parse_mail_server(channel.smtp or "")
    recipients = channel.to if recipient is None else (recipient,)
    mail = forms.format_mail(message, channel.from_ or "", recipients)
    try:
        await aiosmtplib.send(
            mail,
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.is_tls,
            start_tls=not server.is_tls and not is_loopback(server.host),
            timeout=SECONDS_MAX,
        )
    except SMTPRecipientsRefused as error:
        codes = [one.code for one in error.recipients]
        return DeliveryFailure(
            f"the mail server answers {codes[0]} to the recipient", all(one in PERMANENT for one in codes)
        )
    except SMTPResponseException as error:
        return DeliveryFailure(f"the mail server answers {error.code}")
    except (SMTPException, OSError) as error:
        return DeliveryFailure(f"the mail server does not take it: {type(error).__name__}")
    return None


Sender = Callable[[Channel, AlertMessage, str | None, float], Awaitable[DeliveryFailure | None]]
SENDERS: dict[str, Sender] = {
    "webhook": _send_webhook,
    "slack": _send_slack,
    "pagerduty": _send_pagerduty,
    "smtp": _send_mail,
}
"""By the kind of a channel, how it sends."""
