"""All outgoing HTTP calls pass through the site's proxy, a real Squid. Only Squid can resolve their host names."""

import asyncio
import socket
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

import pytest

from edgeproxy.base import http_peer, log, outgoing_proxy
from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.base.outgoing_proxy import find_proxy, set_proxy
from edgeproxy.cli import api
from edgeproxy.collector.encryption import aws_kms
from edgeproxy.collector.exports import storage
from edgeproxy.collector.webhooks import http_post
from edgeproxy.collector.webhooks.address_policy import find_refusal
from edgeproxy.edge.supervisor import acme_order
from loadtest.testbed.authority import Authority
from loadtest.testbed.ports import HOST
from loadtest.testbed.squid import PROGRAM, Squid
from loadtest.testbed.threaded_server import Threaded
from tests.e2e.test_hostile_peers import limit_calls
from tests.support.documented_tables import read_table
from tests.support.logs import capture_logs
from tests.support.tls_peers import LEAVING, PAST_ROWS, PROXY_ROWS, STAYING, TRUSTING, TlsPeer, build_aws_environment

PAGE = Path(__file__).parents[2] / "docs/operations/outgoing-calls.md"
NAME = "service.test"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECONDS_MAX = 60.0
PROXY_WORDS = "Proxy Authentication Required"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Squid on this machine")


class ServedInThread(Threaded):
    """A proxy that runs `serve` for each connection."""

    def __init__(self, serve: Serve) -> None:
        super().__init__("proxy")
        self._serve_one = serve
        self.connections = 0

    async def _begin(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            await self._serve_one(reader, writer)

        self._server = await asyncio.start_server(serve, HOST, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    with Squid({NAME: HOST}) as made:
        yield made


@pytest.fixture(scope="module")
def guarded() -> Iterator[Squid]:
    """A proxy that wants the password `p@ss:word`."""
    with Squid({NAME: HOST}, "p@ss:word") as made:
        yield made


@pytest.fixture(autouse=True)
def _own_outgoing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_CA_BUNDLE", *VARIABLES, *map(str.lower, VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    yield
    set_proxy(None, ())


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsPeer]:
    """A service with a certificate of the only authority. Each call would take 30 ms to read the system's."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with TlsPeer(authority.issue(NAME)) as made:
        yield made


def know_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process resolve the service's name too."""
    look_up = socket.getaddrinfo

    def find(host: str, *arguments: object, **options: object) -> object:
        return look_up(HOST if host == NAME else host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", find)


def call(name: str, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a call, and return its result or its error as text."""
    url = f"https://{NAME}:{peer.port}"
    for variable, value in build_aws_environment(url).items():
        monkeypatch.setenv(variable, value)
    if name == "webhook":  # The collector resolves its name, to check the addresses.
        know_name(monkeypatch)

    async def run() -> str:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return repr(await TRUSTING[name](url))
        except Exception as error:
            return f"{error!r} {error}"

    return asyncio.run(run())


@pytest.mark.parametrize("way", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("name", LEAVING)
def test_call_leaves_through_the_proxy(
    name: str, way: str, squid: Squid, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(way, squid.url)
    result = call(name, peer, monkeypatch)
    assert peer.heard, result


@pytest.mark.parametrize("name", [name for name in LEAVING if name != "webhook"])  # The collector resolves its name.
def test_call_without_the_proxy_finds_no_way_out(name: str, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    call(name, peer, monkeypatch)
    assert not peer.heard


@pytest.mark.parametrize("name", LEAVING)
def test_call_sends_the_password_that_the_proxy_wants(
    name: str, guarded: Squid, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxy(guarded.url.replace("://", "://me:p%40ss%3Aword@"), ())
    result = call(name, peer, monkeypatch)
    assert peer.heard, result
    set_proxy(guarded.url, ())
    heard = len(peer.heard)
    result = call(name, peer, monkeypatch)
    assert len(peer.heard) == heard
    assert "p@ss" not in result


def test_refused_call_names_the_proxy_and_its_status(
    guarded: Squid, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxy(guarded.url.replace("://", "://me:wrong@"), ())
    assert "the site's proxy answers 407" in call("webhook", peer, monkeypatch)
    assert "407" in call("keys of an issuer", peer, monkeypatch)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "192.168.1.1"])
def test_customer_s_webhook_reaches_no_internal_address_through_the_proxy(
    squid: Squid, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A customer cannot use the proxy to reach an address that the collector refuses."""
    set_proxy(squid.url, ())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = [(family, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    before = len(squid.requests)
    failure = asyncio.run(
        http_post.post_body(
            "https://receiver.example/x", b"{}", {}, lambda at: find_refusal(at, "receiver.example", private=False)
        )
    )
    assert failure is not None
    assert failure.why.startswith("it leads to "), failure
    assert len(squid.requests) == before


@pytest.mark.parametrize("name", STAYING)
def test_other_calls_go_past_the_proxy(name: str, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with ServedInThread(serve) as proxy:
        set_proxy(f"http://{HOST}:{proxy.port}", ())
        for variable in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://{HOST}:{proxy.port}")
        know_name(monkeypatch)
        result = call(name, peer, monkeypatch)
    assert peer.heard, result
    assert not proxy.connections


def test_each_row_of_the_documented_table_is_tried() -> None:
    rows = read_table(PAGE.read_text(), "through the proxy")
    assert [cell for cell, _ in rows if cell] == list(PROXY_ROWS)
    assert [cell for _, cell in rows if cell] == list(PAST_ROWS)
    assert sorted(chain.from_iterable(PROXY_ROWS.values())) == sorted(LEAVING)
    assert sorted(chain.from_iterable(PAST_ROWS.values())) == sorted(STAYING)


@contextmanager
def limit_leaving_calls(seconds: float) -> Iterator[None]:
    """Shorten the calls whose timeout is not an argument."""
    with limit_calls(seconds), pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "REQUEST_SECONDS_MAX", seconds)
        patch.setattr(storage, "RETRIES", {"max_retries": 0})
        patch.setattr(aws_kms, "CALL_SECONDS", KMS_SECONDS)
        patch.setattr(acme_order, "CALL_SECONDS", seconds)
        patch.setattr(api, "RESPONSE_SECONDS", seconds)
        yield


FAULTS = {
    "wants a password": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    "answers with an error page": b"HTTP/1.1 503 Busy\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "answers with a page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "sends half a head": b"HTTP/1.1 200 OK\r\n",
    "sends no HTTP": b"nonsense\r\n\r\n",
    "closes": b"",
    "hangs": None,
}
"""The proxy's answer to each request, or None for no answer."""
FAULT_SECONDS = 3.0
"""Seconds for a call that only a timeout ends. Two calls have a fixed timeout of 5 s."""
FAULT_SECONDS_MAX = 20.0
KMS_SECONDS = 10.0
"""Seconds for AWS KMS: loading its library takes some of them."""
PASSWORD = "hush-hush"
TRACES = (PASSWORD, b64encode(f"me:{PASSWORD}".encode()).decode())


EVERY_CALL = ("wants a password", "hangs")
SAME_CLIENT = ("usage", "beacon", "keys of an issuer", "residency", "ClickHouse", "region", "meter events")
"""Calls by the client of `directory`, which turns each fault into one exception. What they do with it is their own."""


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in LEAVING for fault in FAULTS if name not in SAME_CLIENT or fault in EVERY_CALL],
)
def test_call_through_a_faulty_proxy_ends_in_time_and_hides_the_password(
    name: str, fault: str, peer: TlsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the proxy and its setting. If customers read the error, or it has only a status, the log does."""
    answer = FAULTS[fault]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")
        if answer is None:
            await reader.read()
        writer.close()

    monkeypatch.setattr(http_peer, "_proxy_log", log.RateLimitedLog(600.0))
    with ServedInThread(serve) as proxy, limit_leaving_calls(FAULT_SECONDS), capture_logs() as lines:
        set_proxy(f"http://me:{PASSWORD}@{HOST}:{proxy.port}", ())
        began = time.monotonic()
        result = call(name, peer, monkeypatch)
        took = time.monotonic() - began
    assert proxy.connections, result
    assert not peer.heard
    assert took < FAULT_SECONDS_MAX, result
    written = f"{result} {lines}"
    assert f"the site's proxy http://{HOST}:{proxy.port} (of the setting proxy)" in written
    assert "the site's proxy" in result or name in ("residency", "region"), result
    assert not any(trace in written for trace in TRACES)
    if name == "webhook":  # Customers read the reason.
        assert str(proxy.port) not in result


def test_proxy_that_wants_a_password_is_named_by_a_call_without_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy answers `http://` requests itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(FAULTS["wants a password"] or b"")
        writer.close()

    with ServedInThread(serve) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:{PASSWORD}@{HOST}:{proxy.port}")
        result = asyncio.run(_fetch_plainly())
        assert result == f"the site's proxy http://{HOST}:{proxy.port} (of HTTP_PROXY) answers 407 {PROXY_WORDS}"


async def _fetch_plainly() -> str:
    async with open_session(HttpPeer("the peer", FAULT_SECONDS, 1024)) as session:
        with pytest.raises(http_peer.OutgoingProxyError) as error:
            await session.get(f"http://{NAME}/")
        return str(error.value)


@pytest.mark.parametrize(
    ("url", "past", "is_past"),
    [
        ("https://api.example.com/x", (), False),
        ("https://127.0.0.1:1/", (), True),
        ("https://[::1]/", (), True),
        ("https://localhost/", (), True),
        ("https://a.localhost/", (), True),
        ("https://api.example.com/", ("example.com",), True),
        ("https://api.example.com/", (".example.com",), True),
        ("https://api.example.com:8443/", ("api.example.com:8443",), True),
        ("https://notexample.com/", ("example.com",), False),
        ("http://acme-collector:9100/", ("acme-collector",), True),
        ("https://10.1.2.3/", ("10.0.0.0/8",), True),
        ("https://11.1.2.3/", ("10.0.0.0/8",), False),
        ("https://[fd00::1]/", ("fd00::/8",), True),
        ("https://api.example.com/", ("*",), True),
        ("redis://api.example.com/", (), False),
    ],
)
def test_exceptions_go_past_the_proxy(
    url: str, past: tuple[str, ...], is_past: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxy("http://proxy.test:3128", past)
    assert (find_proxy(url) is None) == (is_past or url.startswith("redis"))
    set_proxy(None, ())
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", ",".join(past))
    assert (find_proxy(url) is None) == (is_past or url.startswith("redis"))


def test_password_of_a_proxy_is_taken_apart() -> None:
    set_proxy("http://me:p%40ss@proxy.test:3128", ())
    proxy = find_proxy("https://api.example.com/")
    assert proxy == outgoing_proxy.OutgoingProxy("http://proxy.test:3128", "me", "p@ss")
    assert proxy.full_url == "http://me:p%40ss@proxy.test:3128"


@pytest.mark.parametrize("password", ["p@ss", "p/ss", "p#ss", "p?ss", "p:ss", "100%", "p%40/"])
def test_raw_character_in_the_password_of_a_variable_ends_nothing(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@proxy.test:3128/")
    proxy = find_proxy("https://api.example.com/")
    assert proxy == outgoing_proxy.OutgoingProxy("http://proxy.test:3128", "me", unquote(password), "of HTTPS_PROXY")
