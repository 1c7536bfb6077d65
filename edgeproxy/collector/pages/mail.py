"""Mail with a link by which somebody signs in."""

from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import aiosmtplib

from edgeproxy.config.collector.pages import SignInMail

SECONDS_MAX = 30.0
"""Seconds that a server may take."""
FAILED = (aiosmtplib.SMTPException, OSError, TimeoutError)
"""What says that mail was not taken."""


def message(sender: str, to: str, subject: str, text: str) -> EmailMessage:
    """Make a mail of plain text."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, to, subject
    made["Date"], made["Message-ID"] = formatdate(), make_msgid(domain=sender.rpartition("@")[2])
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text)
    return made


async def send(mail: SignInMail, made: EmailMessage) -> None:
    """Hand mail to the server; raises one of FAILED."""
    await aiosmtplib.send(
        made,
        hostname=mail.server.host,
        port=mail.server.port,
        use_tls=mail.tls == "tls",
        start_tls=mail.tls == "starttls",
        username=mail.user,
        password=mail.password,
        timeout=SECONDS_MAX,
    )
