"""Mails from pages: their format, and sending through the server."""

import asyncio
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import aiosmtplib

from edgeproxy.base.trust import create_context
from edgeproxy.config.collector.pages import SignInMail

SECONDS_MAX = 30.0
"""Seconds for sending a mail."""
MAIL_ERRORS = (aiosmtplib.SMTPException, OSError, TimeoutError)
"""The exceptions when a mail was not accepted."""
PERMANENT_CODE_MIN = 500
"""The lowest SMTP code of a permanent failure (RFC 5321 section 4.2.1)."""


class AddressRefusedError(Exception):
    """The mail server refuses this address or this mail, but may accept other mails."""

    def __init__(self, code: int, *, is_of_mail: bool = False) -> None:
        """`is_of_mail`: the mail was refused rather than the address, possibly because of its sender."""
        super().__init__(f"code {code}")
        self.is_permanent = code >= PERMANENT_CODE_MIN and not is_of_mail


def create_message(sender: str, to: str, subject: str, text: str, html: str | None = None) -> EmailMessage:
    """Return a mail with plain text and, if given, HTML, which programs prefer (RFC 2046 section 5.1.4).

    Raises ValueError if a header field has a line break.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, to, subject
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=sender.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    if html is not None:
        mail.add_alternative(html, subtype="html")
    return mail


async def send_message(mail: SignInMail, message: EmailMessage) -> None:
    """Send a mail through the server. Raises one of MAIL_ERRORS."""
    async with asyncio.timeout(SECONDS_MAX):  # The library's timeout applies to each command.
        await aiosmtplib.send(
            message,
            hostname=mail.server.host,
            port=mail.server.port,
            use_tls=mail.tls == "tls",
            start_tls=mail.tls == "starttls",
            tls_context=None if mail.tls == "none" else await asyncio.to_thread(create_context),
            username=mail.user,
            password=mail.password,
            timeout=SECONDS_MAX,
        )


async def send_to_one(mail: SignInMail, message: EmailMessage) -> None:
    """Send a mail with one address through the server. Raises one of MAIL_ERRORS, or AddressRefusedError."""
    try:
        await send_message(mail, message)
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise AddressRefusedError(error.recipients[0].code) from error
    except aiosmtplib.SMTPDataError as error:  # The mailbox is full, or the mail is too large for it.
        raise AddressRefusedError(error.code, is_of_mail=True) from error
