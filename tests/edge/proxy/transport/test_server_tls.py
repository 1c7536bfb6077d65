"""TLS on listeners: handshakes, certificates, closes, and data."""

import asyncio
import gc
import json
import random
import socket
import ssl
import threading
import weakref
from pathlib import Path

import pytest

from edgeproxy.base.trust import load_certificate
from edgeproxy.edge.proxy.process.acceptor import TlsHandshake
from edgeproxy.edge.proxy.transport import server_tls
from edgeproxy.edge.proxy.transport.client_hello import NO_APPLICATION_PROTOCOL
from edgeproxy.edge.proxy.transport.tls import certificate_thread
from loadtest.neighbours.kinds.tls import client_hello, key_updates
from tests.edge.proxy.authority import Authority
from tests.support.transcript import Edge, get, head, ok, post
from tests.support.wire import PATIENCE, Wire

MIB = 1 << 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(edge: Edge, authority: Authority) -> Edge:
    """An edge whose listener has TLS."""
    return listens(edge, authority, ("edge.test",))


def listens(edge: Edge, authority: Authority, *names: tuple[str, ...]) -> Edge:
    """Give the listener certificates for these names."""
    listed = [{"cert": str(cert), "key": str(key)} for cert, key in (authority.issues(*name) for name in names)]
    edge.config["listen"] = {"address": "127.0.0.1:0", "tls": {"certificates": listed}}
    return edge


async def exchanged(edge: Edge, client: Wire, request: bytes, answer: bytes) -> None:
    """Exchange a request of this client and its answer."""
    upstream = await edge.brings(client, request)
    await upstream.tells(client, answer)
    upstream.closes()


async def guests(edge: Edge) -> list[TlsHandshake]:
    """Wait for a handshake in progress, and return all of them."""
    await edge.until(lambda: edge.runtime.connections.handshakes)
    return list(edge.runtime.connections.handshakes)


def logged(capsys: pytest.CaptureFixture[str]) -> str:
    """Return all captured output."""
    return "".join(capsys.readouterr())


def names_of(client: ssl.SSLObject) -> set[str]:
    """Return the names of the certificate that the edge presented."""
    certificate = client.getpeercert()
    assert certificate
    return {value for _, value in certificate["subjectAltName"]}


# ---- requests


async def test_a_request_over_tls_is_served_and_stamped_as_https(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    assert client.tls.version() == "TLSv1.3"
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    for _ in range(3):
        await client.sends(post(b"body"))
        upstream = await secure.upstream.accepts()
        request = await upstream.gets_request()
        assert request["X-Forwarded-Proto"] == "https"
        assert request.body == b"body"
        assert (await upstream.tells(client, ok(b"answer"))).body == b"answer"
        upstream.closes()


async def test_each_message_under_tls_is_written_at_once(
    secure: Edge, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await secure.secure_client(authority.trusted())
    await client.sends(get())
    upstream = await secure.upstream.accepts()
    await upstream.gets_request()
    (held,) = secure.runtime.connections.clients
    write, unsent = held.write, []

    def look(data: bytes) -> None:
        write(data)
        unsent.append(held.transport.get_write_buffer_size())

    monkeypatch.setattr(held, "write", look)
    await upstream.tells(client, ok(b"some"))
    assert unsent == [0]


async def test_tls_1_2_is_the_oldest_version(secure: Edge, authority: Authority) -> None:
    context = authority.trusted()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = await secure.secure_client(context)
    assert client.tls.version() == "TLSv1.2"
    assert client.tls.cipher()[0].startswith("ECDHE-ECDSA-")  # type: ignore[index]
    assert client.tls.compression() is None
    await exchanged(secure, client, get(), ok())
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert|protocol"):
        await secure.secure_client(context)


async def test_a_request_in_the_same_packet_as_the_end_of_the_handshake_is_served(
    secure: Edge, authority: Authority
) -> None:
    plain = await secure.client()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.trusted().wrap_bio(incoming, outgoing, server_hostname="edge.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    await plain.sends(outgoing.read())
    while True:
        incoming.write(await plain.gets_bytes(1))
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            pass
    tls.write(get())
    upstream = await secure.brings(plain, outgoing.read())
    await upstream.sends(ok())
    answer = b""
    while not answer.endswith(b"hello"):
        incoming.write(await plain.gets_bytes(1))
        try:
            answer += tls.read(1 << 14)
        except ssl.SSLWantReadError:
            pass


async def test_a_session_is_resumed(secure: Edge, authority: Authority) -> None:
    context = authority.trusted()
    client = await secure.secure_client(context)
    await exchanged(secure, client, get(), ok())
    client.closes()
    again = await secure.secure_client(context, session=client.tls.session)
    assert again.tls.session_reused
    await exchanged(secure, again, get(), ok())


# ---- certificates


async def test_the_certificate_follows_the_requested_name(edge: Edge, authority: Authority) -> None:
    listens(edge, authority, ("edge.test",), ("*.wild.test", "exact.test"), ("b.wild.test",))
    context = authority.trusted()
    context.check_hostname = False
    for asked, shown in (
        ("edge.test", "edge.test"),
        ("EXACT.test", "exact.test"),
        ("a.wild.test", "*.wild.test"),
        ("b.wild.test", "b.wild.test"),
        ("a.b.wild.test", "edge.test"),
        ("wild.test", "edge.test"),
        ("other.test", "edge.test"),
        (None, "edge.test"),
    ):
        client = await edge.secure_client(context, asked)
        assert shown in names_of(client.tls), asked


async def test_an_invalid_server_name_fails_the_handshake_without_a_log_line(
    secure: Edge, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    context = authority.trusted()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="aaaa.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    plain = await secure.client()
    await plain.sends(outgoing.read().replace(b"aaaa.test", b"\xff\xfe\xfd\xfc.test"))
    await plain.gets_cut()
    assert "Traceback" not in logged(capsys)
    assert secure.count("edge_tls_handshake_failures_total") == 1


async def test_new_connections_get_the_new_certificate_and_old_ones_stay(secure: Edge, authority: Authority) -> None:
    first = await secure.secure_client(authority.trusted())
    number = first.tls.getpeercert()["serialNumber"]  # type: ignore[index]
    authority.issues("edge.test")
    before = await secure.secure_client(authority.trusted())
    assert before.tls.getpeercert()["serialNumber"] == number  # type: ignore[index]
    await secure.worker.reload_certificates()
    after = await secure.secure_client(authority.trusted())
    assert after.tls.getpeercert()["serialNumber"] != number  # type: ignore[index]
    for client in (first, before, after):
        await exchanged(secure, client, get(), ok())


async def test_reload_reads_certificates_beside_the_loop(
    secure: Edge, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener with hundreds of names would otherwise stop its worker."""
    readers = []

    def load(*arguments: object) -> None:
        readers.append(threading.current_thread())
        load_certificate(*arguments)  # type: ignore[arg-type]

    await secure.secure_client(authority.trusted())
    monkeypatch.setattr(server_tls, "load_certificate", load)
    await secure.worker.reload_certificates()
    assert readers
    assert threading.current_thread() not in readers


async def test_unusable_files_keep_the_old_certificate(
    secure: Edge, authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await secure.secure_client(authority.trusted())
    (tmp_path / "edge.key").write_text("no key")
    await secure.worker.reload_certificates()
    (tmp_path / "edge.crt").unlink()
    await secure.worker.reload_certificates()
    after = await secure.secure_client(authority.trusted())
    assert after.tls.getpeercert() == first.tls.getpeercert()
    assert logged(capsys).count("certificates not loaded") == 2


async def test_client_certificates_are_required_with_client_ca(
    secure: Edge, authority: Authority, tmp_path: Path
) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    listens(secure, authority, ("edge.test",), ("exact.test",))
    secure.config["listen"]["tls"]["client_ca"] = str(clients.file)
    for issuer in (None, strangers):
        context = authority.trusted()
        if issuer is not None:
            context.load_cert_chain(*issuer.issues("somebody"))
        client = await secure.secure_client(context)
        # TLS 1.3 tells a client that it was refused only after its handshake.
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            await client.gets_rest()
    assert secure.count("edge_tls_handshake_failures_total") == 2
    context = authority.trusted()
    context.load_cert_chain(*clients.issues("customer"))
    for name in ("edge.test", "exact.test"):
        client = await secure.secure_client(context, name)
        await exchanged(secure, client, get(), ok())


async def test_a_changed_client_ca_applies_after_a_reload(secure: Edge, authority: Authority, tmp_path: Path) -> None:
    clients, others = Authority(tmp_path, "clients"), Authority(tmp_path, "others")
    secure.config["listen"]["tls"]["client_ca"] = str(clients.file)
    context = authority.trusted()
    context.load_cert_chain(*others.issues("other"))
    refused = await secure.secure_client(context)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        await refused.gets_rest()
    clients.file.write_bytes(others.file.read_bytes())
    await secure.worker.reload_certificates()
    await exchanged(secure, await secure.secure_client(context), get(), ok())


async def test_client_certificates_are_verified_in_a_thread(secure: Edge, authority: Authority, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    secure.config["listen"]["tls"]["client_ca"] = str(clients.file)
    context = authority.trusted()
    context.load_cert_chain(*clients.issues("customer"))
    await secure.starts()
    is_free = threading.Event()
    try:
        certificate_thread().submit(is_free.wait)
        client, gone = await secure.secure_client(context), await secure.secure_client(context)
        gone.closes()
        assert len(await guests(secure)) == 2
    finally:
        is_free.set()
    await secure.until(lambda: secure.count("edge_tls_handshake_failures_total") == 1)
    await exchanged(secure, client, get(), ok())


async def test_flood_of_key_updates_ends_its_connection_and_a_few_do_not(secure: Edge) -> None:
    client, inbox = await secure.client(), bytearray()
    pieces = key_updates(inbox)
    while not secure.runtime.connections.clients:
        piece = next(pieces)
        if isinstance(piece, bytes):
            await client.sends(piece)
        await secure.until(lambda: secure.runtime.connections.clients or client.has())
        inbox += client._take(len(client._held))
    few = [next(pieces), next(pieces)]
    await client.sends(*few)
    await client.gets_bytes(len(b"".join(few)))  # The edge answers each update with one.
    assert secure.runtime.connections.clients
    await client.sends(*(next(pieces) for _ in range(20)))
    await client.gets_cut()
    await secure.until(lambda: not secure.runtime.connections.clients)


# ---- handshakes that fail


async def test_an_unknown_alpn_protocol_fails_the_handshake(secure: Edge, authority: Authority) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)no application protocol"):
        await secure.secure_client(authority.trusted(("h3",)))
    assert secure.count("edge_tls_handshake_failures_total") == 1


@pytest.mark.parametrize("offered", [("h2", "http/1.1"), ("http/1.0", "http/1.1"), ("http/1.0",)])
async def test_the_best_offered_alpn_protocol_is_chosen(
    secure: Edge, authority: Authority, offered: tuple[str, ...]
) -> None:
    secure.config["listen"]["http2"] = False
    client = await secure.secure_client(authority.trusted(offered))
    assert client.tls.selected_alpn_protocol() == offered[-1]
    await exchanged(secure, client, head("GET /public/ HTTP/1.0", "Host: h"), ok())


@pytest.mark.parametrize("first", [1, 4, 5, 60, -1])
async def test_an_unknown_alpn_protocol_fails_a_handshake_in_pieces(
    secure: Edge, authority: Authority, first: int
) -> None:
    """A first message longer than a packet arrives in pieces."""
    outgoing = ssl.MemoryBIO()
    tls = authority.trusted(("h3",)).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="edge.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    client = await secure.client()
    await client.sends(hello[:first])
    (guest,) = await guests(secure)
    await secure.until(lambda: guest._hello)
    await client.sends(hello[first:])
    assert await client.gets_cut() == NO_APPLICATION_PROTOCOL


async def test_a_plain_request_answers_400_with_a_hint(secure: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    """A body that follows must not reset the connection before the answer is read (RFC 9112 section 9.6)."""
    client = await secure.client()
    await client.sends(post(bytes(10_000)))
    answer = await client.gets_answer("POST")
    assert (answer.status, answer["Connection"], answer["Content-Type"]) == (400, "close", "application/problem+json")
    assert "https://" in json.loads(answer.body)["detail"]
    await client.gets_eof()
    await client.sends(bytes(10_000))
    client.closes()
    await secure.until(lambda: not secure.count("edge_connections", "client"))
    assert secure.count("edge_tls_handshake_failures_total") == 1
    assert "a request without TLS" in logged(capsys)
    asked = await secure.client()
    await asked.sends(b"HEAD / HTTP/1.1\r\n")
    assert (await asked.gets_answer("HEAD")).body == b""
    await asked.gets_eof()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01\x00\x02" + bytes(60), bytes(100)])
async def test_other_bytes_than_tls_close_the_connection(
    secure: Edge, sent: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await secure.client()
    await client.sends(sent)
    assert len(await client.gets_cut()) <= 7  # An alert at most.
    assert secure.count("edge_tls_handshake_failures_total") == 1
    written = logged(capsys)
    assert "TLS handshake failed" in written
    assert "Traceback" not in written


async def test_many_failed_handshakes_are_logged_in_one_line(secure: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        client = await secure.client()
        await client.sends(bytes(100))
        await client.gets_cut()
    assert secure.count("edge_tls_handshake_failures_total") == 20
    assert logged(capsys).count("TLS handshake failed") == 1


async def test_a_connection_closed_without_data_is_no_failure(secure: Edge) -> None:
    client = await secure.client()
    client.closes()
    await secure.until(lambda: not secure.count("edge_connections", "client"))
    assert secure.count("edge_tls_handshake_failures_total") == 0


async def test_handshake_of_a_client_that_has_gone_costs_no_signature(
    secure: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await secure.starts()
    steps: list[TlsHandshake] = []
    monkeypatch.setattr(TlsHandshake, "_finish_step", lambda handshake, step: steps.append(handshake))
    with socket.create_connection(secure.address) as gone:
        gone.sendall(client_hello())
    await secure.until(lambda: secure.count("edge_tls_handshake_failures_total") == 1)
    await secure.until(lambda: not secure.count("edge_connections", "client"))
    assert not steps


async def test_handshake_beyond_its_bound_is_closed(secure: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    """A handshake with many certificates is long. OpenSSL would accept 100 KiB."""
    client = await secure.client()
    await client.sends(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(16380))
    await guests(secure)
    await client.sends(b"\x16\x03\x01\x40\x00" + bytes(16384))
    await client.gets_cut()
    assert "the handshake is too long" in logged(capsys)


async def test_stalled_tls_handshake_is_closed_at_its_deadline(secure: Edge, authority: Authority) -> None:
    secure.config["limits"] = {"header_timeout": "100ms"}
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        authority.trusted().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="edge.test").do_handshake()
    silent, slow = await secure.client(), await secure.client()
    await slow.sends(outgoing.read()[:50])
    await silent.gets_cut()
    await slow.gets_cut()
    assert secure.count("edge_tls_handshake_failures_total") == 2
    await secure.until(lambda: not secure.count("edge_connections", "client"))


async def test_damaged_handshakes_do_not_affect_other_connections(
    secure: Edge, authority: Authority, seed: int
) -> None:
    chance = random.Random(seed)
    kept = await secure.secure_client(authority.trusted())
    for _ in range(60):
        plain = await secure.client()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.trusted().wrap_bio(incoming, outgoing, server_hostname="edge.test")
        spoilt = chance.randrange(2)
        try:
            for flight in range(3):
                try:
                    tls.do_handshake()
                    tls.write(get())
                except ssl.SSLWantReadError:
                    pass
                data = bytearray(outgoing.read())
                if flight == spoilt and data:
                    for _ in range(chance.randrange(1, 4)):
                        data[chance.randrange(len(data))] = chance.randrange(256)
                    del data[chance.randrange(len(data)) :]
                await plain.sends(bytes(data))
                await secure.settles()
                incoming.write(plain.has())
                plain.takes_all()
        except (ssl.SSLError, ConnectionError):
            pass
        plain.takes_all()
        plain.closes()
    while secure.upstream.is_asked():
        pass
    await exchanged(secure, kept, get(), ok())


async def test_a_stalled_handshake_does_not_delay_a_drain(secure: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.process.acceptor.LAST_REQUEST_SECONDS", 0.05)
    silent = await secure.client()
    await secure.until(lambda: secure.count("edge_connections", "client"))
    async with asyncio.timeout(PATIENCE):
        await secure.worker.drain(60.0)
    await silent.gets_cut()


# ---- closes


async def test_the_edge_sends_close_notify_when_it_closes(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    upstream = await secure.brings(client, get("/public/", "Connection: close"))
    await upstream.tells(client, ok())
    await client.gets_eof()


async def test_an_answer_with_close_is_read_whole_despite_unread_input(secure: Edge, authority: Authority) -> None:
    """A close with unread input resets the connection and loses the answer. See Client.close."""
    client = await secure.secure_client(authority.trusted())
    answer = await client.asks(head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: x"), bytes(60_000))
    assert answer.status == 400
    await client.gets_eof()


async def test_close_notify_of_a_client_ends_its_request(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    upstream = await secure.brings(client, get())
    client.says_last_word()
    await upstream.gets_cut()
    await client.gets_eof()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_close_notify_of_an_idle_client_is_answered(
    secure: Edge, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.trusted()
    context.maximum_version = version
    client = await secure.secure_client(context)
    client.says_last_word()
    await client.gets_eof()
    await secure.until(lambda: not secure.count("edge_connections", "client"))


async def test_close_notify_after_pipelined_requests_is_handled_in_order(secure: Edge, authority: Authority) -> None:
    secure.config["limits"] = {"pipelined": 1}
    client = await secure.secure_client(authority.trusted())
    upstream = await secure.brings(client, get())
    client.tls.write(get("/public/next"))
    client.says_last_word()
    (held,) = secure.worker.runtime.connections.clients
    await secure.until(lambda: not held.reading)
    assert not held.half_closed
    assert (await upstream.tells(client, ok())).status == 200
    await client.gets_eof()
    await upstream.gets_cut()


async def test_a_cut_off_response_has_no_close_notify(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    upstream = await secure.brings(client, get())
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 100"), b"begun")
    await client.gets_head()
    await client.gets(b"begun")
    upstream.aborts()
    await client.gets_truncated()


async def test_an_altered_record_ends_the_connection(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    await exchanged(secure, client, get(), ok())
    client.sends_now(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client.gets_rest()


async def test_a_closed_connection_is_freed_without_the_garbage_collector(secure: Edge, authority: Authority) -> None:
    """The garbage collector runs rarely, and TLS state is large."""
    client = await secure.secure_client(authority.trusted())
    await exchanged(secure, client, get(), ok())
    (held,) = secure.worker.runtime.connections.clients
    tls = weakref.ref(held.transport._tls)  # type: ignore[attr-defined]
    del held
    gc.disable()
    try:
        client.closes()
        await secure.until(lambda: tls() is None)
    finally:
        gc.enable()


# ---- flow


async def test_a_client_that_does_not_read_pauses_its_upstream(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    upstream = await secure.brings(client, get())
    await upstream.sends(head("HTTP/1.1 200 OK", f"Content-Length: {200 * MIB}"))
    sent = await upstream.sends_while_taken(bytes(64 << 10), 200 * MIB)
    assert sent < 40 * MIB
    (held,) = secure.worker.runtime.connections.clients
    assert held.write_paused
    assert held.transport.get_write_buffer_size() < MIB
    upstream.aborts()
    await client.gets_truncated()


async def test_an_upstream_that_does_not_read_pauses_its_client(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", f"Content-Length: {200 * MIB}"))
    upstream = await secure.upstream.accepts()
    await upstream.gets_head()
    (held,) = secure.worker.runtime.connections.clients
    assert await client.sends_while_taken(bytes(64 << 10), 200 * MIB) < 40 * MIB
    assert not held.reading
    assert held.exchange is not None
    assert held.exchange.server is not None
    assert held.exchange.server.transport.get_write_buffer_size() < MIB
    client.aborts()
    await upstream.gets_cut()


# ---- tunnels

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
SWITCHED = head("HTTP/1.1 101 Switching Protocols", *UPGRADE)


async def test_tls_tunnel_survives_a_half_close_of_the_client(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    await client.sends(get("/public/", *UPGRADE))
    upstream = await secure.upstream.accepts()
    await upstream.gets_head()
    await upstream.sends(SWITCHED, b"one")
    await client.gets_head()
    await client.gets(b"one")
    await client.sends(b"last")
    client.says_last_word()
    await upstream.gets(b"last")
    await upstream.gets_eof()
    for _ in range(3):
        await upstream.sends(bytes(100_000))
        await client.gets_bytes(100_000)
    upstream.closes()
    await client.gets_eof()


async def test_tls_tunnel_survives_a_half_close_of_the_upstream(secure: Edge, authority: Authority) -> None:
    client = await secure.secure_client(authority.trusted())
    await client.sends(get("/public/", *UPGRADE))
    upstream = await secure.upstream.accepts()
    await upstream.gets_head()
    await upstream.sends(SWITCHED, b"one")
    upstream.sends_eof()
    await client.gets_head()
    await client.gets(b"one")
    await client.gets_eof()
    for _ in range(3):
        await client.sends(bytes(100_000))
        await upstream.gets_bytes(100_000)
    client.says_last_word()
    await upstream.gets_eof()
