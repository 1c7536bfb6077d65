"""Real edges with a service for each contract row, and functions that run a row on them."""

import asyncio
import socket
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from loadtest.testbed.customers import key_line, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.waiting import turned
from tests.contract.case import FROM_ANYBODY, FROM_TRUSTED, HOST, Answered, Asked, Broken, Fault, Seen, get, lines
from tests.contract.play import Play, Scene
from tests.contract.upstream import Endpoint, Recorder, check_fields, check_seen, meanwhile
from tests.support.wire import PATIENCE, Cut, Message, Wire
from tests.support.wire import shown as shown_bytes

T = TypeVar("T")

FENCE = "/fence"
"""A path that no row uses. An answer to it shows that the edge has forwarded all earlier requests."""


class Stage:
    """One edge, started once, with the services of its rows."""

    def __init__(self, folder: Path, rows: Iterable[Any] = (), **settings: Any) -> None:
        """Each of `rows` gets a service and a host of its own. All other hosts go to the recorder."""
        self._loop = asyncio.Runner()
        self.recorder = Recorder(Endpoint())
        self._endpoints = {id(row): Endpoint() for row in rows}
        self._hosts = {key: f"c{n}.test" for n, key in enumerate(self._endpoints)}
        timeouts, http2 = settings.pop("timeouts", {}), settings.pop("http2", False)
        owned = [(self._hosts[key].partition(".")[0], endpoint) for key, endpoint in self._endpoints.items()]
        services = {
            name: {"endpoints": [f"http://127.0.0.1:{endpoint.port}"], "timeouts": timeouts}
            for name, endpoint in [("all", self.recorder.endpoint), *owned]
        }
        routes = [
            *(
                {
                    "name": name,
                    "host": f"{name}.test",
                    "path": "/*",
                    "upstream": name,
                    "auth": "none",
                    "upgrade": ["websocket", "SPDY/3.1"],
                }
                for name, _ in owned
            ),
            {"name": "internal", "host": "internal.test", "path": "/*", "upstream": "all", "scopes": ["internal"]},
            {"name": "keyed", "path": "/keyed/*", "upstream": "all"},
            {"name": "reading", "path": "/reading/*", "upstream": "all", "auth": "none", "methods": ["GET"]},
            {"name": "all", "path": "/*", "upstream": "all", "auth": "none"},
        ]
        who = people(acme="pro")
        who["keys"].append(key_line("acme", sha256=who["keys"][0]["sha256"][::-1], scopes=["internal"]))
        settings = {"workers": 1, "upstreams": services, "routes": routes, **who, **settings}
        settings.setdefault("trusted_proxies", [f"{FROM_TRUSTED}/32"])
        self.edge = Edge(folder, 0, **settings)
        if http2:
            self.edge.settings["listen"] = {"address": f"127.0.0.1:{self.edge.port}", "http2": True}
        self.edge.start()
        self.run(self._begin())

    async def _begin(self) -> None:
        self.recorder.begins()

    def run(self, work: Awaitable[T]) -> T:
        """Run the work in the stage's event loop and return its result."""

        async def working() -> T:
            return await work

        return self._loop.run(working())

    def closes(self) -> None:
        """End the edge, which must exit cleanly, and its services."""
        try:
            self.edge.close()
        finally:
            self.run(self._end())
            self._loop.close()

    async def _end(self) -> None:
        await self.recorder.ends()
        for endpoint in (self.recorder.endpoint, *self._endpoints.values()):
            endpoint.closes()

    # ---- service and host of a row

    def endpoint_of(self, row: object) -> Endpoint:
        """Return the service of a row."""
        return self._endpoints[id(row)]

    def bytes_of(self, row: object, data: bytes) -> bytes:
        """Return the bytes of a row's client with the host of the row in them."""
        return data.replace(HOST.encode(), self._hosts[id(row)].encode())

    async def client(self, source: str = FROM_ANYBODY) -> Wire:
        """Open a client connection from this address."""
        return await connect(self.edge.port, source)

    # ---- rows of requests

    async def ask(self, case: Asked, *, piece: int = 0) -> list[Message]:
        """Send a row's bytes, all at once or `piece` bytes at a time, and check the results against the row. Return the
        answers."""
        recorder = self.recorder
        recorder.forgets()
        client = await self.client(case.source)
        try:
            async with meanwhile(dribble(client, case.sent, piece)):
                answers = [await client.gets_answer(method) for method in methods(case)]
                assert tuple(answer.status for answer in answers) == case.answers
                for answer in answers:
                    check_own(answer, last=answer is answers[-1] and case.ends)
                if answers:
                    check_fields(answers[-1], case.has, ())
                if case.ends:
                    await client.gets_eof()
            if not case.ends:
                await client.sends(get(FENCE))
                assert (await client.gets_answer()).status == 200, "the connection serves no further request"
        finally:
            client.closes()
        await self.settles()
        self.check_requests(case.seen, cut=case.cut)
        return answers

    def check_requests(self, expected: tuple[Seen, ...], *, cut: bool = False) -> None:
        """Check the recorded requests against the expected ones."""
        requests = self.requests
        assert [request.first for request in requests] == [seen.line for seen in expected]
        for request, seen in zip(requests, expected, strict=True):
            check_seen(request, seen)
        assert not self.recorder.odd
        assert cut or not self.recorder.unfinished

    @property
    def requests(self) -> list[Message]:
        """The recorded requests without those to FENCE."""
        return [request for request in self.recorder.requests if request.first != f"GET {FENCE} HTTP/1.1"]

    async def settles(self) -> None:
        """Wait until the edge has forwarded all requests and has cut those that it cannot complete."""
        fence = await self.client()
        await fence.sends(get(FENCE, "Connection: close"))
        assert (await fence.gets_answer()).status == 200
        await fence.gets_eof()
        fence.closes()
        await turned(lambda: not self.recorder.within, "every request has ended, or its connection", seconds=PATIENCE)

    # ---- rows of answers

    async def answer(self, case: Answered, *, piece: int = 0) -> None:
        """Answer a request with a row's bytes, and check the client's answer against the row."""
        endpoint = self.endpoint_of(case)
        client = await self.client()
        upstream = None
        try:
            await client.sends(self.bytes_of(case, case.to))
            upstream = await endpoint.accepts()
            request = await upstream.gets_request()
            async with meanwhile(self._answer(upstream, case, piece)) as answering:
                ended = await self._check_answer(client, case, request.first.partition(" ")[0])
                await answering
            again = client
            if ended:
                client.closes()
                again = client = await self.client()
            await again.sends(self.bytes_of(case, get("/again")))
            await self._check_reuse(endpoint, upstream, again, reused=case.reused)
        finally:
            client.closes()
            if upstream is not None:
                upstream.closes()
        assert not endpoint.is_asked(), "a connection too many"

    async def _answer(self, upstream: Wire, case: Answered, piece: int) -> None:
        await dribble(upstream, case.sent, piece)
        if case.then == "closes":
            upstream.sends_eof()
        elif case.then == "resets":
            upstream.aborts()

    async def _check_answer(self, client: Wire, case: Answered, method: str) -> bool:
        """Check the client's answer. Return whether its connection has ended."""
        got = case.got
        if isinstance(got, Broken):
            # A reset may overtake the bytes sent before it. Then no part of the answer has come.
            errors = (got.error, "connection_terminated") if case.then == "resets" else (got.error,)
            return await self._check_broken(client, errors, method)
        interim = []
        while (answer := await client.gets_answer(method)).status < 200 and answer.status != 101:
            interim.append(answer.status)
        assert tuple(interim) == got.interim
        assert answer.status == got.status
        if isinstance(got, Fault):
            check_fault(answer, (got.error,), method)
            return answer.all("Connection") == ["close"]
        check_own(answer, last=got.ends)
        assert answer.body == got.body
        check_fields(answer, got.has, got.lacks)
        assert tuple(f"{name}: {value}" for name, value in answer.trailers) == got.trailers
        if got.ends:
            await client.gets_eof()
        return got.ends

    async def _check_broken(self, client: Wire, errors: tuple[str, ...], method: str) -> bool:
        try:
            answer = await client.gets_answer(method)
        except (Cut, ConnectionError):
            return True
        check_fault(answer, errors, method)
        return answer.all("Connection") == ["close"]

    async def _check_reuse(self, endpoint: Endpoint, upstream: Wire, again: Wire, *, reused: bool) -> None:
        """Check that the next request uses this upstream connection or a new one, and gets its own answer."""
        if reused:
            serving = upstream
        else:
            serving = await endpoint.accepts()
            if upstream.open:
                assert await upstream.gets_cut() == b"", "used again"
        request = await serving.gets_request()
        assert request.first == "GET /again HTTP/1.1"
        await serving.sends(lines("HTTP/1.1 203 Again", "Content-Length: 5"), b"again")
        answer = await again.gets_answer()
        assert (answer.status, answer.body) == (203, b"again")
        serving.closes()

    # ---- plays

    async def act(self, row: Play) -> None:
        """Run a play."""
        await row.run(Scene(self.endpoint_of(row), self.client, lambda data: self.bytes_of(row, data)))


# ---- functions for all stages


async def connect(port: int, source: str = FROM_ANYBODY) -> Wire:
    """Open a connection to this port from this address."""
    end = socket.socket()
    end.setblocking(False)
    end.bind((source, 0))
    async with asyncio.timeout(PATIENCE):
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
    return Wire(end)


async def dribble(wire: Wire, data: bytes, piece: int = 0) -> None:
    """Send bytes, all at once or `piece` at a time, until the receiver closes the connection."""
    step = piece or len(data) or 1
    try:
        for start in range(0, len(data), step):
            await wire.sends(data[start : start + step])
            await asyncio.sleep(0)
    except (ConnectionError, TimeoutError):
        pass


def methods(case: Asked) -> list[str]:
    """Return the method of each answer of a row. An answer without a forwarded request gets the first method."""
    asked = [seen.line.partition(" ")[0] for seen in case.seen]
    first = "HEAD" if case.sent.startswith(b"HEAD ") else "GET"
    return [*asked, *[first] * len(case.answers)][: len(case.answers)]


def check_own(answer: Message, *, last: bool) -> None:
    """Check that a final answer has one request id, and that Connection says whether the connection closes."""
    assert len(answer.all("X-Request-Id")) == 1, answer
    if answer.status != 101:
        assert answer.all("Connection") == (["close"] if last else []), answer


def check_fault(answer: Message, errors: tuple[str, ...], method: str) -> None:
    """Check that an answer comes from the edge and names the upstream's fault with one of these errors."""
    assert answer["Proxy-Status"] in [f"edgeproxy; error={error}" for error in errors]
    assert answer["Content-Type"] == "application/problem+json"
    assert method == "HEAD" or answer.body.startswith(b"{"), shown_bytes(answer.body)
