"""TLS to upstreams: verification of certificates, the client certificate, and ends of connections."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.edge.proxy.authority import Authority
from tests.support.transcript import Edge, get, head, ok, post
from tests.support.wire import PATIENCE, Message

MIB = 1 << 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def inside(edge: Edge, authority: Authority) -> Edge:
    """An edge whose upstream uses TLS, with a certificate for its address."""
    speaks(edge, authority.serving("127.0.0.1"))
    edge.config["upstreams"]["api"]["tls"] = {"ca": str(authority.file)}
    return edge


def speaks(edge: Edge, context: ssl.SSLContext) -> None:
    """Configure the upstream's TLS."""
    edge.upstream.tls = context
    edge.config["upstreams"]["api"]["endpoints"] = [edge.upstream.url]


async def fails(edge: Edge, error: str, status: int = 502) -> Message:
    """The edge cannot forward a request, for this reason."""
    client = await edge.client()
    await client.sends(get())
    try:
        upstream = await edge.upstream.accepts()
        await upstream.gets_head()
    except (ssl.SSLError, ConnectionError, AssertionError):
        pass
    answer = await client.gets_answer()
    assert answer.status == status
    assert answer["Proxy-Status"] == f"edgeproxy; error={error}"
    assert edge.count("edge_upstream_errors_total", "api", error) == 1
    client.closes()
    for wire in edge.upstream.wires:
        wire.closes()
    return answer


async def test_upstream_tls_connection_is_reused(inside: Edge) -> None:
    client = await inside.client()
    await client.sends(get())
    upstream = await inside.upstream.accepts()
    assert upstream.tls.version() == "TLSv1.3"  # type: ignore[attr-defined]
    for n in range(3):
        request = await upstream.gets_request()
        assert request["X-Forwarded-Proto"] == "http"
        assert (await upstream.tells(client, ok(b"%d" % n))).body == b"%d" % n
        await client.sends(get())
    await upstream.serves(client, ok())


@pytest.mark.parametrize("size", [16 << 10, 3 * MIB])
async def test_bodies_pass_both_ways(inside: Edge, size: int) -> None:
    body = bytes(range(256)) * (size // 256)
    client = await inside.client()
    inside.upstream.answers(lambda request: ok(request.body))
    inside.upstream.begins()
    _, answer = await asyncio.gather(client.sends(post(body)), client.gets_answer())
    assert answer.body == body


# ---- whom it believes


async def test_an_upstream_that_a_stranger_vouches_for_is_not_believed(inside: Edge, tmp_path: Path) -> None:
    speaks(inside, Authority(tmp_path, "stranger").serving("127.0.0.1"))
    answer = await fails(inside, "tls_certificate_error")
    assert b"issuer" not in answer.body


async def test_public_authorities_are_believed_unless_another_is_named(
    inside: Edge, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    del inside.config["upstreams"]["api"]["tls"]
    await fails(inside, "tls_certificate_error")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    await inside.worker.reload_certificates()
    await inside.passes(get(), ok())


async def test_a_certificate_for_another_name_is_not_believed(inside: Edge, authority: Authority) -> None:
    speaks(inside, authority.serving("127.0.0.2"))
    await fails(inside, "tls_certificate_error")


async def test_a_common_name_is_no_name_of_a_host(inside: Edge, tmp_path: Path) -> None:
    """RFC 9525 section 6.4: only subjectAltName names a host."""
    authority = Authority(tmp_path, "common")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(common="api.internal"))
    speaks(inside, context)
    inside.config["upstreams"]["api"]["tls"] = {"ca": str(authority.file), "server_name": "api.internal"}
    await fails(inside, "tls_certificate_error")


async def test_an_expired_certificate_is_not_believed(
    inside: Edge, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issues("127.0.0.1", expired=True))
    speaks(inside, context)
    answer = await fails(inside, "tls_certificate_error")
    assert b"expired" not in answer.body
    assert "certificate has expired" in "".join(capsys.readouterr())


async def test_the_name_to_be_shown_may_be_another_than_the_address(inside: Edge, authority: Authority) -> None:
    asked = []
    context = authority.serving("service.internal")
    context.sni_callback = lambda tls, name, _: asked.append(name)
    speaks(inside, context)
    inside.config["upstreams"]["api"]["tls"]["server_name"] = "service.internal"
    await inside.passes(get(), ok())
    assert asked == ["service.internal"]


async def test_an_upstream_need_prove_nothing_where_that_is_configured(inside: Edge, tmp_path: Path) -> None:
    speaks(inside, Authority(tmp_path, "stranger").serving("elsewhere.test"))
    inside.config["upstreams"]["api"]["tls"] = {"verify": False}
    await inside.passes(get(), ok())


# ---- who it says it is


async def test_the_edge_shows_its_certificate(inside: Edge, authority: Authority) -> None:
    cert, key = authority.issues("edge.internal")
    inside.config["upstreams"]["api"]["tls"] |= {"cert": str(cert), "key": str(key)}
    assert inside.upstream.tls is not None
    inside.upstream.tls.verify_mode = ssl.CERT_REQUIRED
    inside.upstream.tls.load_verify_locations(authority.file)
    await inside.passes(get(), ok())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_missing_client_certificate_is_reported_by_the_upstream(
    inside: Edge, authority: Authority, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the upstream refuses it after the edge's side of the handshake is finished."""
    assert inside.upstream.tls is not None
    inside.upstream.tls.maximum_version = version
    inside.upstream.tls.verify_mode = ssl.CERT_REQUIRED
    inside.upstream.tls.load_verify_locations(authority.file)
    await fails(inside, "tls_alert_received")


# ---- handshakes that fail


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda end: end.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "tls_protocol_error"),
        (lambda end: end.shutdown(socket.SHUT_WR), "connection_terminated"),
    ],
    ids=["no TLS", "a close"],
)
async def test_an_upstream_that_breaks_the_handshake_is_a_fault(
    inside: Edge, act: Callable[[socket.socket], object], error: str
) -> None:
    client = await inside.client()
    await client.sends(get())
    end, _ = await asyncio.get_running_loop().sock_accept(inside.upstream.listening)
    act(end)
    answer = await client.gets_answer()
    assert answer["Proxy-Status"] == f"edgeproxy; error={error}"
    end.close()


async def test_a_handshake_takes_no_longer_than_connecting_may(inside: Edge) -> None:
    inside.config["upstreams"]["api"] |= {"timeouts": {"connect": "100ms"}, "retry": {"attempts": 1}}
    client = await inside.client()
    await client.sends(get())
    end, _ = await asyncio.get_running_loop().sock_accept(inside.upstream.listening)
    answer = await client.gets_answer()
    assert answer.status == 504
    assert answer["Proxy-Status"] == "edgeproxy; error=connection_timeout"
    async with asyncio.timeout(PATIENCE):
        while await asyncio.get_running_loop().sock_recv(end, 4096):
            pass
    end.close()


async def test_a_client_that_leaves_within_the_handshake_leaves_nothing(inside: Edge) -> None:
    client = await inside.client()
    await client.sends(get())
    end, _ = await asyncio.get_running_loop().sock_accept(inside.upstream.listening)
    client.aborts()
    await inside.until(lambda: not inside.runtime.connections.clients)
    end.close()
    await inside.until(lambda: not inside.runtime.tasks._running)


# ---- ends


async def ends(edge: Edge, *, last_word: bool, request: bytes = get()) -> Message | bytes:
    """Return the client's view of an answer that ends with the upstream connection."""
    client, upstream = await edge.forwards(request)
    await upstream.sends(head("HTTP/1.1 200 OK"), b"all of it")
    await edge.until(lambda: client.has().endswith((b"all of it\r\n", b"all of it")))
    if last_word:
        upstream.says_last_word()  # type: ignore[attr-defined]
        answer = await client.gets_answer()
        upstream.closes()
        return answer
    upstream.closes()
    return await client.gets_reset()


async def test_answer_ended_by_close_notify_is_complete(inside: Edge) -> None:
    answer = await ends(inside, last_word=True)
    assert isinstance(answer, Message)
    assert answer.body == b"all of it"


async def test_an_answer_is_cut_off_where_only_its_connection_ends(inside: Edge) -> None:
    """An attacker could have ended the connection (RFC 9112 section 9.8)."""
    await ends(inside, last_word=False)


async def test_an_idle_connection_that_ends_is_not_used_again(inside: Edge) -> None:
    client, upstream = await inside.serves()
    upstream.says_last_word()  # type: ignore[attr-defined]
    await inside.until(lambda: not inside.endpoint().idle)
    await upstream.gets_eof()
    again = await inside.brings(client, get())
    await again.tells(client, ok())


async def test_a_new_connection_goes_on_with_a_session(inside: Edge) -> None:
    reused = []
    for _ in range(3):
        client = await inside.client()
        await client.sends(get())
        upstream = await inside.upstream.accepts()
        reused.append(upstream.tls.session_reused)  # type: ignore[attr-defined]
        await upstream.serves(client, ok())
        client.closes()
        upstream.says_last_word()  # type: ignore[attr-defined]
        await inside.until(lambda: not inside.runtime.connections.upstreams)
        upstream.closes()
    assert reused == [False, True, True]
