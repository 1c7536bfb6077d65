"""Batches over HTTP: the request, servers with odd or missing answers, and a real collector."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
import zstandard

from edgeproxy.edge.usage import transport
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.edge.usage.ship import Shipper
from edgeproxy.edge.usage.spool import Spool
from edgeproxy.edge.usage.transport import HttpTransport, describe_error
from edgeproxy.wire.batch import Batch, compute_digest, format_batch
from loadtest.testbed.authority import Authority
from loadtest.testbed.collector import Collector
from tests.edge.usage.peer import append

BATCH = Batch("edge-1", "here", 3, 0, 0, "0" * 64, (("acme", "requests", "v1", 1),))
BODY = format_batch(BATCH)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + b'{"watermark": 3}'

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


class Server:
    """A server that answers each request with bytes or by a function. `requests` has the heads and bodies."""

    def __init__(self, answer: bytes | Answer = OK, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.tls = tls
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        self.ended = 0

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = dict(line.split(": ", 1) for line in lines if line)
                content = await reader.readexactly(int(fields["Content-Length"]))
                self.requests.append(({":": first, **fields}, content))
                if isinstance(self.answer, bytes):
                    writer.write(self.answer)
                    await writer.drain()
                else:
                    await self.answer(reader, writer, content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


def with_server(server: Server, work: Callable[[HttpTransport], Awaitable[None]], **options: object) -> None:
    """Run `work` with a transport to the server, and close the transport."""

    async def both() -> None:
        async with asyncio.timeout(20), server:
            http = HttpTransport(f"http://127.0.0.1:{server.port}", **options)  # type: ignore[arg-type]
            try:
                await work(http)
            finally:
                await http.close()

    asyncio.run(both())


def ask(server: Server, **options: object) -> Reply | OSError:
    """Send one batch. Return the reply or the error."""
    found: list[Reply | OSError] = []

    async def work(http: HttpTransport) -> None:
        try:
            found.append(await http(BATCH, BODY))
        except OSError as failure:
            found.append(failure)

    with_server(server, work, **options)
    return found[0]


def test_the_request_follows_the_contract() -> None:
    server = Server()
    assert ask(server, token="s3cret") == Reply(200, b'{"watermark": 3}')
    ((fields, content),) = server.requests
    assert fields[":"] == "POST /v1/batches HTTP/1.1"
    assert (fields["Edge-Id"], fields["Edge-Seq"], fields["Edge-Hash"]) == ("edge-1", "3", compute_digest(BODY))
    assert (fields["Content-Encoding"], fields["Content-Type"]) == ("zstd", "application/json")
    assert fields["Authorization"] == "Bearer s3cret"
    assert zstandard.ZstdDecompressor().decompress(content) == BODY


def test_transport_reuses_one_connection_and_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "THREAD_BYTES_MIN", 10)
    server = Server()

    async def work(http: HttpTransport) -> None:
        for _ in range(5):
            assert (await http(BATCH, BODY)).status == 200
        assert (server.connections, server.ended) == (1, 0)
        await http.close()
        await http.close()
        while not server.ended:  # noqa: ASYNC110, another task changes the condition
            await asyncio.sleep(0.001)
        # The next batch opens a new connection.
        assert (await http(BATCH, BODY)).status == 200

    with_server(server, work)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", Reply(429, b"", 7.0)),
        (b"HTTP/1.1 503 X\r\nRetry-After: Fri, 20 Nov 2026 12:00:00 GMT\r\nContent-Length: 0\r\n\r\n", Reply(503, b"")),
        (b"HTTP/1.1 503 X\r\nRetry-After: -1\r\nContent-Length: 0\r\n\r\n", Reply(503, b"")),
        (b"HTTP/1.1 302 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", Reply(302, b"")),
        (b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", Reply(307, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell", Reply(200, b"well")),
        # The transport does not decompress answers.
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nwell", Reply(200, b"well")),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}", Reply(200, b"{}")),
    ],
)
def test_the_answer_is_returned(answer: bytes, reply: Reply) -> None:
    server = Server(answer)
    assert ask(server) == reply
    assert len(server.requests) == 1


def test_the_size_of_an_answer_is_bounded() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            await writer.drain()

    server = Server(flood)

    async def work(http: HttpTransport) -> None:
        with pytest.raises(
            transport.UnansweredError, match="the collector's answer had a body of more than 65536 bytes"
        ):
            await http(BATCH, BODY)
        # The transport closes the connection with the unread rest, and the next batch uses a new one.
        server.answer = OK
        assert (await http(BATCH, BODY)).body == b'{"watermark": 3}'
        assert server.connections == 2

    with_server(server, work)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 99_999 + b"\r\n\r\n",
        bytes(999),
    ],
)
def test_an_invalid_answer_is_an_error(answer: bytes) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(answer)
        writer.close()

    failure = ask(Server(close))
    assert isinstance(failure, OSError)
    assert str(failure)


def test_a_silent_or_slow_server_times_out() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        await reader.read()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
        await reader.read()

    for answer in (never, slowly):
        assert isinstance(ask(Server(answer), total=0.05), TimeoutError)


def test_a_refused_connection_is_an_os_error() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]

    async def work() -> None:
        http = HttpTransport(f"http://127.0.0.1:{port}/")
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            await http(BATCH, BODY)
        await http.close()

    asyncio.run(work())


def test_tls_checks_the_name_and_presents_a_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served, shown = authority.issue("collector.example"), authority.issue("edge")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    serving.load_cert_chain(*served)
    serving.verify_mode = ssl.CERT_REQUIRED
    knowing = ssl.create_default_context(cafile=authority.file)
    strange = ssl.create_default_context(cafile=authority.file)
    knowing.load_cert_chain(*shown)

    async def work() -> None:
        async with asyncio.timeout(20), Server(tls=serving) as server:
            url = f"https://127.0.0.1:{server.port}"
            for tls, name, why in (
                (knowing, "collector.example", ""),
                (knowing, None, "IP address mismatch"),
                (knowing, "other.example", "Hostname mismatch"),
                (None, "collector.example", "certificate verify failed"),
                (strange, "collector.example", "."),
            ):
                http = HttpTransport(url, tls=tls, server_name=name)
                if why:
                    with pytest.raises(OSError, match=why):
                        await http(BATCH, BODY)
                else:
                    assert (await http(BATCH, BODY)).status == 200
                await http.close()
            assert len(server.requests) == 1

    asyncio.run(work())


def test_an_unknown_token_at_a_real_collector_is_reported(tmp_path: Path, sqlite_collector: Collector) -> None:
    spool = Spool.open(tmp_path / "spool")
    append(spool)

    async def work() -> None:
        http = HttpTransport(f"http://127.0.0.1:{sqlite_collector.port}", "not-one")
        shipper = Shipper(spool, http)
        assert 0 < await shipper.step() <= 0.1
        assert shipper.status.why == "the collector answers 401: the token is not known here"
        await http.close()

    asyncio.run(work())


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]:1: "), ("127.0.0.1", "127.0.0.1:1: ")])
def test_refused_connection_shows_its_address_as_urls_do(host: str, shown: str) -> None:
    key = aiohttp.client_reqrep.ConnectionKey(host, 1, False, True, None, None, None, None)
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
    assert describe_error(aiohttp.ClientConnectorError(key, refused)) == f"{shown}Connection refused"
