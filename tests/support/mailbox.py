"""A real mail server (aiosmtpd), and what it was given."""

import email
import email.policy
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until


def text_of(mail: EmailMessage) -> str:
    """The plain text of a mail, which may have HTML beside it."""
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def html_of(mail: EmailMessage) -> str:
    """The HTML of a mail."""
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())


class Mailbox:
    """A server that takes mail of anybody."""

    def __init__(self) -> None:
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self.mails: list[EmailMessage] = []
        self.refused: set[str] = set()
        """Addresses that do not exist any more."""
        self.full: dict[str, str] = {}
        """What is answered to the data of mails, by address."""
        self._controller = Controller(self, hostname=HOST, port=self.port)
        self._controller.start()

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:
        """Take an address."""
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        """Take a mail."""
        assert isinstance(envelope.content, bytes)
        if refusal := self.full.get(envelope.rcpt_tos[0]):
            return refusal
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))  # type: ignore[arg-type]
        return "250 taken"

    def wait_for(self, count: int) -> EmailMessage:
        """The last of so many mails, once they are there."""
        until(lambda: len(self.mails) >= count, f"{count} mails are there")
        return self.mails[count - 1]

    def close(self) -> None:
        """End the server."""
        self._controller.stop()
        self._ports.close()
