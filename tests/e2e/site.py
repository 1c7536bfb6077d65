"""A typical web site, which the tests serve with aiohttp in their own loop to see both of its sides."""

import asyncio
import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from struct import pack
from typing import Any

import aiohttp
from aiohttp import web

from loadtest.testbed.ports import HOST

IMAGES, SCRIPTS, SHEETS = 30, 8, 4
ASSETS = IMAGES + SCRIPTS + SHEETS
"""The number of resources of the front page."""


def picture(number: int) -> bytes:
    """Return a PNG of one grey column, `number` + 1 pixels high."""
    rows = b"".join(b"\0" + bytes((row % 256,)) for row in range(number + 1))

    def chunk(name: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))

    header = pack(">IIBBBBB", 1, number + 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def asset(name: str) -> tuple[str, bytes]:
    """Return the type and content of a resource of the front page; scripts and sheets have some 100 KiB."""
    number, _, kind = name.partition(".")
    if kind == "png":
        return "image/png", picture(int(number))
    if kind == "js":
        return "text/javascript", b"window.ran = (window.ran || 0) + 1; // %b\n" % (b"x" * 100_000)
    return "text/css", b"body { --sheet-%d: %d; }\n/* %b */" % (int(number), int(number) + 1, b"y" * 100_000)


def front() -> bytes:
    """Return the front page with all resources."""
    sheets = "".join(f'<link rel="stylesheet" href="/asset/{n}.css">' for n in range(SHEETS))
    scripts = "".join(f'<script src="/asset/{n}.js" defer></script>' for n in range(SCRIPTS))
    images = "".join(f'<img src="/asset/{n}.png" alt="">' for n in range(IMAGES))
    return f"<!doctype html><title>Front</title>{sheets}{scripts}<p>Grüße, 世界{images}".encode()


class Site:
    """The service. It records its requests and the number of connections."""

    def __init__(self) -> None:
        self.cue = asyncio.Event()
        """Releases the next piece of a stream."""
        self.gone: asyncio.Queue[str] = asyncio.Queue()
        """Paths of streams whose reader disconnected."""
        self.asked: list[web.Request] = []
        self.statuses: Counter[int] = Counter()
        self.app = web.Application(client_max_size=1 << 30, middlewares=[self._noted])
        get, post = self.app.router.add_get, self.app.router.add_post
        get("/", self.front)
        get("/favicon.ico", self.icon)
        get("/asset/{name}", self.asset)
        get("/moved", self.moved)
        get("/log-in", self.log_in)
        get("/cookies", self.cookies)
        post("/upload", self.upload)
        post("/form", self.form)
        get("/events", self.events)
        get("/pieces", self.pieces)
        get("/socket", self.socket)
        self.app.router.add_route("*", "/keyed/echo", self.echo)

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request)
        answer: web.StreamResponse = await handler(request)
        self.statuses[answer.status] += 1
        return answer

    def paths(self) -> list[str]:
        """The paths of all requests."""
        return [request.path_qs for request in self.asked]

    async def front(self, _: web.Request) -> web.Response:
        fields = {"Content-Type": "text/html; charset=utf-8", "Content-Encoding": "gzip", "Cache-Control": "no-store"}
        return web.Response(body=gzip.compress(front()), headers=fields)

    async def icon(self, _: web.Request) -> web.Response:
        return web.Response(body=picture(1), content_type="image/png")

    async def asset(self, request: web.Request) -> web.Response:
        """Serve a cacheable resource that the browser must revalidate."""
        kind, body = asset(request.match_info["name"])
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        fields = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=fields)
        return web.Response(body=body, content_type=kind, headers=fields)

    async def moved(self, _: web.Request) -> web.Response:
        raise web.HTTPFound("/")

    async def log_in(self, _: web.Request) -> web.Response:
        answer = web.Response(status=303, headers={"Location": "/cookies"})
        answer.set_cookie("session", "of-the-test", httponly=True, samesite="Lax")
        answer.set_cookie("theme", "dark", path="/", max_age=60)
        return answer

    async def cookies(self, request: web.Request) -> web.Response:
        return web.json_response(dict(request.cookies))

    async def upload(self, request: web.Request) -> web.Response:
        digest, length = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            length += len(piece)
        return web.json_response({"length": length, "sha256": digest.hexdigest()})

    async def form(self, request: web.Request) -> web.Response:
        """Return each field of a multipart form: its value, or a file's name, type and digest."""
        told: dict[str, Any] = {}
        async for part in await request.multipart():
            body = bytes(await part.read())
            file = [part.filename, part.headers.get("Content-Type"), len(body), hashlib.sha256(body).hexdigest()]
            told[part.name] = file if part.filename else body.decode()
        return web.json_response(told)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the events 0 to 2 and end the stream. The browser then requests the events after the last one."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await answer.prepare(request)
        first = int(request.headers.get("Last-Event-ID", -1)) + 1
        await answer.write(b"retry: 10\n\n")
        for number in range(first, first + 3):
            await self.cue.wait()
            self.cue.clear()
            await answer.write(b"id: %d\ndata: event %d\n\n" % (number, number))
        return answer

    async def pieces(self, request: web.Request) -> web.StreamResponse:
        """Send pieces for ever, each on its cue."""
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"piece ")
                await self.cue.wait()
                self.cue.clear()
        finally:
            self.gone.put_nowait(request.path)

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Echo text and binary; close with 4001 on "bye"."""
        tunnel = web.WebSocketResponse(protocols=["echo"], max_msg_size=0)
        await tunnel.prepare(request)
        async for message in tunnel:
            if message.type is aiohttp.WSMsgType.BINARY:
                await tunnel.send_bytes(message.data)
            elif message.data == "bye":
                await tunnel.close(code=4001, message="à bientôt".encode())
            else:
                await tunnel.send_str(message.data)
        self.gone.put_nowait(f"closed {tunnel.close_code}")
        return tunnel

    async def echo(self, request: web.Request) -> web.Response:
        """Return method, fields and the length of the body."""
        body = await request.read()
        told = {"method": request.method, "fields": dict(request.headers), "length": len(body)}
        return web.json_response(told, headers={"X-Own": "yes"})

    @asynccontextmanager
    async def open(self, port: int) -> AsyncIterator["Site"]:
        """Serve on this port."""
        runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        try:
            yield self
        finally:
            await runner.cleanup()
