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
from edgeproxy.collector.alerts.message import Message
from edgeproxy.collector.alerts.reach import refused
from edgeproxy.collector.alerts.signature import signed
from edgeproxy.config.alerts import Channel, parse_mail_server
from edgeproxy.config.parsers import is_loopback

SECONDS_MAX = 15.0
"""Seconds that an attempt may take, from the look-up of a name to the answer."""
CONNECT_SECONDS_MAX = 5.0
GONE = 410
"""The status by which a receiver says that it wants nothing any more (Standard Webhooks)."""
PERMANENT = range(500, 600)
"""Codes of SMTP by which a server refuses a recipient for good (RFC 5321 section 4.2.1)."""
FIELDS = {"Content-Type": "application/json", "User-Agent": f"edgeproxy/{__version__}"}


class Failed(NamedTuple):
    """An attempt that failed: why, whether another one is of no use, and for how long to wait, if that was said."""

    why: str
    is_final: bool = False
    wait: float | None = None


async def send(channel: Channel, message: Message, recipient: str | None, now: float) -> Failed | None:
    """Send a message once; None where it was taken. `recipient` gets the mail instead of whom the channel names."""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await SENDERS[channel.kind](channel, message, recipient, now)
    except TimeoutError:
        return Failed(f"there was no answer within {SECONDS_MAX:g} s")
    except Exception as unforeseen:  # One message must not be in the way of all others.
        return Failed(f"it could not be sent: {type(unforeseen).__name__}")


async def _webhook(channel: Channel, message: Message, _: str | None, now: float) -> Failed | None:
    body = forms.webhook(message)
    return await _post(channel, channel.webhook, body, signed(message.name, int(now), body, channel.secret))


async def _slack(channel: Channel, message: Message, _: str | None, __: float) -> Failed | None:
    return await _post(channel, channel.slack, forms.slack(message))


async def _pagerduty(channel: Channel, message: Message, _: str | None, __: float) -> Failed | None:
    return await _post(channel, channel.url, forms.pagerduty(message, channel.pagerduty or ""))


async def _post(channel: Channel, url: str | None, body: bytes, fields: dict[str, str] | None = None) -> Failed | None:
    """Post a body; what is answered beside its status is not read, and no redirection is followed."""
    assert url is not None
    host = urlsplit(url).hostname or ""
    why: list[str] = []

    def connecting(info: Any) -> socket.socket:
        """Make the socket for an address, of which this is the last look before it is connected to."""
        family, kind, protocol, _, address = info
        no = refused(str(address[0]), host, private=channel.private)
        if no is not None:
            why.append(no)
            raise OSError(no)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(socket_factory=connecting, force_close=True)
    timeout = aiohttp.ClientTimeout(total=SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, data=body, headers={**FIELDS, **(fields or {})}, allow_redirects=False) as answer,
        ):
            return _judged(answer.status, answer.headers.get("Retry-After", ""))
    except TimeoutError:
        raise
    except aiohttp.ClientConnectorCertificateError:
        return Failed("its certificate cannot be trusted")
    except aiohttp.ClientConnectorError as failure:
        return Failed(why[0] if why else f"it cannot be reached: {failure.os_error.strerror or 'no connection'}")
    except aiohttp.ClientError as failure:
        return Failed(f"it does not answer as HTTP has it: {type(failure).__name__}")


def _judged(status: int, retry_after: str) -> Failed | None:
    if 200 <= status < 300:
        return None
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9 else None
    return Failed(f"it answers {status}", status == GONE, wait)


async def _mail(channel: Channel, message: Message, recipient: str | None, _: float) -> Failed | None:
    server = parse_mail_server(channel.smtp or "")
    recipients = channel.to if recipient is None else (recipient,)
    made = forms.mail(message, channel.from_ or "", recipients)
    try:
        await aiosmtplib.send(
            made,
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.is_tls,
            start_tls=not server.is_tls and not is_loopback(server.host),
            timeout=SECONDS_MAX,
        )
    except SMTPRecipientsRefused as no:
        codes = [one.code for one in no.recipients]
        return Failed(f"the mail server answers {codes[0]} to the recipient", all(one in PERMANENT for one in codes))
    except SMTPResponseException as no:
        return Failed(f"the mail server answers {no.code}")
    except (SMTPException, OSError) as failure:
        return Failed(f"the mail server does not take it: {type(failure).__name__}")
    return None


Sender = Callable[[Channel, Message, str | None, float], Awaitable[Failed | None]]
SENDERS: dict[str, Sender] = {"webhook": _webhook, "slack": _slack, "pagerduty": _pagerduty, "smtp": _mail}
"""By the kind of a channel, how it sends."""
