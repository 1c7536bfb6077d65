"""Servers that receive alerts: one for webhooks and one for mail, in threads of the test."""

import asyncio
import ssl
from collections import defaultdict
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple, cast

import orjson
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from loadtest.testbed.ports import HOST
from loadtest.testbed.threaded_server import Threaded
from loadtest.testbed.waiting import STEP


class Hook(NamedTuple):
    """A received request."""

    path: str
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return its body, parsed as JSON."""
        return orjson.loads(self.body)


class Receiver(Threaded):
    """Accepts webhooks. It answers with the entries of `statuses` first, then 204, and never to a path in `held`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__("receiver")
        self._tls = tls
        self.port = 0
        self.got: list[Hook] = []
        self.statuses: dict[str, list[int]] = defaultdict(list)
        self.fields: dict[str, str] = {}
        """Further fields of answers."""
        self.held: set[str] = set()
        self.connections = 0

    def on(self, path: str) -> list[Hook]:
        """Return the requests to a path."""
        return [hook for hook in tuple(self.got) if hook.path == path]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        fields = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Hook(request.path, fields, await request.read()))
        while request.path in self.held:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(STEP)
        statuses = self.statuses[request.path]
        status = statuses.pop(0) if statuses else 204
        if status == 200:  # An answer that has no end.
            endless = web.StreamResponse()
            await endless.prepare(request)
            while True:
                await endless.write(bytes(1 << 16))
        return web.Response(status=status, headers=self.fields)

    async def _begin(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _end(self) -> None:
        self.held.clear()
        await self._runner.cleanup()


class MailTaker(Threaded):
    """Accepts mail from `me` with the password `p@ss`. Recipients in `refused` are answered with their code."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__("mail")
        self._tls = tls
        self.port = 0
        self.got: list[tuple[list[str], EmailMessage]] = []
        self.refused: dict[str, int] = {}

    def to(self, address: str) -> list[EmailMessage]:
        """Return the mails to an address."""
        return [mail for recipients, mail in tuple(self.got) if address in recipients]

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:
        code = self.refused.get(address)
        if code is not None:
            return f"{code} no"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        content = cast(bytes, envelope.content)
        mail = cast(EmailMessage, message_from_bytes(content, policy=policy.default))
        self.got.append((list(envelope.rcpt_tos), mail))
        return "250 OK"

    async def _begin(self) -> None:
        def may(_: SMTP, __: Session, ___: Envelope, mechanism: str, given: Any) -> AuthResult:
            right = isinstance(given, LoginPassword) and (given.login, given.password) == (b"me", b"p@ss")
            return AuthResult(success=right, handled=False)

        def serve() -> SMTP:
            # Its form of LOGIN is not the one that Go's clients know.
            options: dict[str, Any] = {
                "auth_required": True,
                "auth_require_tls": False,
                "auth_exclude_mechanism": ["LOGIN"],
            }
            return SMTP(self, authenticator=may, loop=self._loop, **options)

        self._server = await self._loop.create_server(serve, HOST, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
