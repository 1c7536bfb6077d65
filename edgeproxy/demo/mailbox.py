"""The mailbox of the demonstration: it takes all mail, keeps it in a folder, and shows it on a page.

`python -m demo.mailbox SMTP_PORT HTTP_PORT FOLDER BACK`, on the loopback only. It serves the identity provider too
(`identity.py`), whose client gets its answers at BACK, and reads two lines: the client's secret, and the second factor.
"""

import asyncio
import email
import email.policy
import sys
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from html import escape
from pathlib import Path

from aiohttp import web
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP

from edgeproxy.demo.identity import IdentityProvider
from edgeproxy.demo.ports import HOST

SHOWN = 100
"""Mails on the page, the latest first."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<title>Mailbox</title><style>body {{ font: 16px/1.5 system-ui; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ white-space: pre-wrap; background: #f4f4f4; padding: 1rem }}</style>
<h1>Mailbox</h1>{mails}"""
MAIL = "<h2>{subject}</h2><p>{date}, from {sender} to {recipients}</p><pre>{text}</pre>"


def read_mails(folder: Path) -> list[EmailMessage]:
    """Return the last mails of a Maildir, the latest first."""
    files = sorted((folder / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return [_read_mail(file) for file in files[:SHOWN]]


def _read_mail(file: Path) -> EmailMessage:
    with file.open("rb") as stream:
        return email.message_from_binary_file(stream, policy=email.policy.default)


def describe_mail(mail: EmailMessage) -> dict[str, str]:
    """Return the shown parts of a mail."""
    body = mail.get_body(("plain",))
    return {
        "date": str(mail["Date"]),
        "sender": str(mail["From"]),
        "recipients": str(mail["To"]),
        "subject": str(mail["Subject"]),
        "text": "" if body is None else str(body.get_content()),
    }


def build_app(folder: Path, port: int, provider: IdentityProvider) -> web.Application:
    """Build the page at `/`, and the mails as JSON at `/mails`."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        # Mails have links that sign in: no other site may read them under a name of its own that leads here.
        if request.host not in (f"{HOST}:{port}", f"localhost:{port}"):
            raise web.HTTPForbidden(text=f"This is http://{HOST}:{port}/\n")
        response = await handler(request)
        response.headers.update(HEADERS)
        return response

    async def show_page(_: web.Request) -> web.Response:
        mails = [{name: escape(value) for name, value in describe_mail(mail).items()} for mail in read_mails(folder)]
        shown = "".join(MAIL.format(**mail) for mail in mails) or "<p>No mail yet.</p>"
        return web.Response(text=PAGE.format(mails=shown), content_type="text/html")

    async def list_mails(_: web.Request) -> web.Response:
        return web.json_response([describe_mail(mail) for mail in read_mails(folder)])

    app = web.Application(middlewares=[guard])
    app.add_routes([web.get("/", show_page), web.get("/mails", list_mails)])
    provider.add_routes(app)
    return app


async def serve(smtp_port: int, http_port: int, folder: Path, provider: IdentityProvider) -> None:
    """Serve until the process ends."""
    handler = Mailbox(folder)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: SMTP(handler, hostname="localhost"), HOST, smtp_port)
    runner = web.AppRunner(build_app(folder, http_port, provider), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, http_port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    smtp, http, mails, back = sys.argv[1:]
    client_secret, factor = sys.stdin.read().split()
    identity = IdentityProvider(f"http://{HOST}:{http}", back, client_secret, factor)
    asyncio.run(serve(int(smtp), int(http), Path(mails), identity))
