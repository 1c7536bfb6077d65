"""One attempt to send a message through a channel, by HTTP or mail. The result is a value, never an exception.

The reason of a failure does not quote the channel's URL or recipient, because they may contain secrets.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import aiosmtplib
from aiosmtplib.errors import SMTPException, SMTPRecipientsRefused, SMTPResponseException

from edgeproxy.base.trust import create_context
from edgeproxy.collector.alerts import message as forms
from edgeproxy.collector.alerts.message import AlertMessage, ServiceSite
from edgeproxy.collector.languages.reader import create_reader
from edgeproxy.collector.webhooks.address_policy import find_refusal
from edgeproxy.collector.webhooks.http_post import SECONDS_MAX, DeliveryFailure, post_body
from edgeproxy.collector.webhooks.signature import sign_webhook
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.collector.alerts import Channel, is_in_clear, parse_mail_server
from edgeproxy.config.collector.languages import DEFAULT

PERMANENT = range(500, 600)
"""SMTP codes for permanently refused recipients (RFC 5321 section 4.2.1)."""


class Envelope(NamedTuple):
    """The circumstances of an attempt, other than channel and message."""

    recipient: str | None
    """The address that gets the mail instead of the channel's `to`."""
    now: float
    """The Unix second of the attempt."""
    runbooks: str = ""
    """The URL prefix of runbooks."""
    language: str = DEFAULT
    """The language of a mail."""
    site: ServiceSite = ServiceSite("edgeproxy")
    """The service that sends the mail."""


async def send_message(channel: Channel, message: AlertMessage, envelope: Envelope) -> DeliveryFailure | None:
    """Send a message once. Return None if it was accepted."""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await SENDERS[channel.kind](channel, message, envelope)
    except TimeoutError:
        return DeliveryFailure(f"there was no answer within {SECONDS_MAX:g} s")
    except Exception as error:  # One message must not stop all others.
        return DeliveryFailure(f"it could not be sent: {type(error).__name__}")


async def _send_webhook(channel: Channel, message: AlertMessage, envelope: Envelope) -> DeliveryFailure | None:
    body = forms.format_webhook(message)
    signature = sign_webhook(message.name, int(envelope.now), body, channel.secret)
    return await _post_body(channel, channel.webhook, body, signature)


async def _send_slack(channel: Channel, message: AlertMessage, envelope: Envelope) -> DeliveryFailure | None:
    return await _post_body(channel, channel.slack, forms.format_slack(message, envelope.runbooks))


async def _send_pagerduty(channel: Channel, message: AlertMessage, envelope: Envelope) -> DeliveryFailure | None:
    body = forms.format_pagerduty(message, channel.pagerduty or "", envelope.runbooks)
    return await _post_body(channel, channel.url, body)


async def _send_alertmanager(channel: Channel, message: AlertMessage, envelope: Envelope) -> DeliveryFailure | None:
    body = forms.format_alertmanager(message, envelope.now, envelope.runbooks)
    return await _post_body(channel, channel.alertmanager, body)


async def _post_body(
    channel: Channel, url: str | None, body: bytes, headers: dict[str, str] | None = None
) -> DeliveryFailure | None:
    assert url is not None
    host = urlsplit(url).hostname or ""
    return await post_body(
        url,
        body,
        headers or {},
        lambda address: find_refusal(address, host, private=channel.private, in_clear=is_in_clear(url)),
    )


async def _send_mail(channel: Channel, message: AlertMessage, envelope: Envelope) -> DeliveryFailure | None:
    reader, site, sender = create_reader(envelope.language), envelope.site, channel.from_ or ""
    if envelope.recipient is None:
        mail = forms.format_mail(message, sender, channel.to, reader, site, envelope.runbooks)
    else:
        mail = forms.format_customer_mail(message, sender, envelope.recipient, reader, site)
    server = parse_mail_server(channel.smtp or "")
    try:
        await aiosmtplib.send(
            mail,
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.is_tls,
            start_tls=not server.is_tls and not is_loopback(server.host),
            tls_context=await asyncio.to_thread(create_context),
            timeout=SECONDS_MAX,
        )
    except SMTPRecipientsRefused as error:
        codes = [refused.code for refused in error.recipients]
        return DeliveryFailure(
            f"the mail server answers {codes[0]} to the recipient", all(code in PERMANENT for code in codes)
        )
    except SMTPResponseException as error:
        return DeliveryFailure(f"the mail server answers {error.code}")
    except (SMTPException, OSError) as error:
        return DeliveryFailure(f"the mail server does not take it: {type(error).__name__}")
    return None


Sender = Callable[[Channel, AlertMessage, Envelope], Awaitable[DeliveryFailure | None]]
SENDERS: dict[str, Sender] = {
    "webhook": _send_webhook,
    "slack": _send_slack,
    "pagerduty": _send_pagerduty,
    "alertmanager": _send_alertmanager,
    "smtp": _send_mail,
}
"""The sender of each kind of channel."""
