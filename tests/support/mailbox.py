"""A real mail server (aiosmtpd), and its received mails."""

import email
import email.policy
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until


def text_of(mail: EmailMessage) -> str:
    """Return the plain text of a mail, which may have HTML beside it."""
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def html_of(mail: EmailMessage) -> str:
    """Return the HTML of a mail."""
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())


class Mailbox:
    """A server that accepts mail from every sender."""

    def __init__(self) -> None:
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self.mails: list[EmailMessage] = []
        self.refused: set[str] = set()
        """Addresses that no longer exist."""
        self.full: dict[str, str] = {}
        """The answers to the data of mails, by address."""
        self._controller = Controller(self, hostname=HOST, port=self.port)
        self._controller.start()

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:
        """Accept or refuse an address."""
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        """Accept or refuse a mail."""
        assert isinstance(envelope.content, bytes)
        if refusal := self.full.get(envelope.rcpt_tos[0]):
            return refusal
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))  # type: ignore[arg-type]
        return "250 taken"

    def wait_for(self, count: int) -> EmailMessage:
        """Wait until this many mails have arrived; return the last one."""
        until(lambda: len(self.mails) >= count, f"{count} mails are there")
        return self.mails[count - 1]

    def close(self) -> None:
        """Stop the server."""
        self._controller.stop()
        self._ports.close()
