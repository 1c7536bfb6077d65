"""Health probes of real servers over TCP and TLS, with the answers of each test."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from edgeproxy.config.edge.upstreams import Endpoint, Health, Upstream
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.edge.supervisor.grpc_probe import STATUS, HealthCall
from edgeproxy.edge.supervisor.health import ProbeTarget, ProbeTerms
from edgeproxy.edge.supervisor.probe import PEER, Prober, probe_address
from loadtest.testbed.authority import Authority
from loadtest.testbed.waiting import within
from tests.edge.http2.peer import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, block, frame, settings
from tests.edge.supervisor.certified import serving, tls_upstream
from tests.support.logs import capture_logs

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """A server that reads a head from each connection, unless `listens` is False, and writes its answer."""

    def __init__(self, answer: bytes = OK, *, listens: bool = True, closes: bool = True) -> None:
        self.answer = answer
        self._listens = listens
        self.heads: list[bytes] = []
        self._closes = closes
        self.port = 0

    async def start(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> asyncio.Server:
        created = await asyncio.start_server(self._serve, host, 0, ssl=context)
        self.port = created.sockets[0].getsockname()[1]
        return created

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._listens:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if not self._closes:
                await reader.read()
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass


def play(
    scene: Callable[[Server], Awaitable[None]],
    server: Server | None = None,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
) -> None:
    """Run `scene` with a running server."""
    serving = server or Server()

    async def run() -> None:
        async with await serving.start(host, context):
            await within(20, scene(serving))

    uvloop.run(run())


async def asked(server: Server, seconds: float = 10.0, path: str = "/healthz") -> str | None:
    return await probe_address(Endpoint(url=f"http://127.0.0.1:{server.port}"), "127.0.0.1", path, seconds)


# ---- the request of a probe


def test_a_probe_is_a_get_of_the_path_with_the_configured_authority() -> None:
    async def scene(server: Server) -> None:
        endpoint = Endpoint(url=f"http://api.internal:{server.port}")
        assert await probe_address(endpoint, "127.0.0.1", "/health%20z?deep=%2F", 10.0) is None
        line, *fields = server.heads[0].decode().rstrip().split("\r\n")
        assert line == "GET /health%20z?deep=%2F HTTP/1.1"
        assert f"Host: api.internal:{server.port}" in fields
        assert "User-Agent: edgeproxy-health" in fields

    play(scene)


def test_a_probe_may_use_another_host() -> None:
    async def scene(server: Server) -> None:
        endpoint = Endpoint(url=f"http://api.internal:{server.port}")
        assert await probe_address(endpoint, "127.0.0.1", "/", 10.0, host="shop.test:81") is None
        assert [line for line in server.heads[0].split(b"\r\n") if line.startswith(b"Host")] == [b"Host: shop.test:81"]

    play(scene)


def test_an_ipv6_address_is_probed() -> None:
    async def scene(server: Server) -> None:
        assert await probe_address(Endpoint(url=f"http://api.internal:{server.port}"), "::1", "/", 10.0) is None
        assert await probe_address(Endpoint(url=f"http://[::1]:{server.port}"), "::1", "/", 10.0) is None
        assert f"Host: [::1]:{server.port}\r\n".encode() in server.heads[1]

    play(scene, host="::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_probe_states_no_client_to_a_service_that_expects_the_proxy_protocol(host: str) -> None:
    async def scene(server: Server) -> None:
        url = f"http://api.internal:{server.port}"
        terms = ProbeTerms("/", 5.0, UpstreamTls(), proxy_protocol="v1")
        assert await Prober({})(ProbeTarget("api", url, host, terms)) is None
        assert server.heads[0].startswith(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n")

    play(scene, host=host)


# ---- the answer to a probe


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("200 OK", None),
        ("204 No Content", None),
        ("299 Odd", None),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", None),
        ("399 Odd", None),
        ("400 Bad Request", "status 400"),
        ("404 Not Found", "status 404"),
        ("500 Internal Server Error", "status 500"),
        ("503 Service Unavailable", "status 503"),
    ],
)
def test_the_status_of_a_probe_decides(status: str, why: str | None) -> None:
    async def scene(server: Server) -> None:
        assert await asked(server) == why
        assert len(server.heads) == 1, "redirects are not followed"

    play(scene, Server(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()))


def test_a_body_is_read_up_to_a_bound() -> None:
    async def scene(server: Server) -> None:
        assert await asked(server) is None

    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * (PEER.body_bytes_max + 1)
    play(scene, Server(endless, closes=False))


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"],
    ids=["nothing", "half a head", "half a body"],
)
def test_an_incomplete_answer_fails_after_the_time_out(answer: bytes) -> None:
    async def scene(server: Server) -> None:
        assert await asked(server, 0.1) == "no answer within 0.1 s"

    play(scene, Server(answer, closes=False))


def test_an_answer_that_is_not_http_fails() -> None:
    async def scene(server: Server) -> None:
        why = await asked(server)
        assert why is not None
        assert why.startswith("ClientResponseError: 400")

    play(scene, Server(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))


def test_a_refused_connection_fails() -> None:
    async def scene() -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            endpoint = Endpoint(url=f"http://127.0.0.1:{held.getsockname()[1]}")
            assert await probe_address(endpoint, "127.0.0.1", "/", 10.0) == "connection refused"

    uvloop.run(scene())


# ---- TLS


async def over_tls(upstream: Upstream) -> str | None:
    endpoint = upstream.endpoints[0]
    return await Prober({"api": upstream})(
        ProbeTarget("api", endpoint.url, "127.0.0.1", ProbeTerms("/", 5.0, upstream.tls))
    )


@pytest.mark.parametrize(
    ("names", "host", "tls", "why"),
    [
        (["127.0.0.1"], "127.0.0.1", {"ca": True}, None),
        (["api.internal"], "api.internal", {"ca": True}, None),
        (["api.internal"], "127.0.0.1", {"ca": True, "server_name": "api.internal"}, None),
        (["other.internal"], "api.internal", {"verify": False}, None),
        (["other.internal"], "api.internal", {"ca": True}, "Hostname mismatch"),
        (["api.internal"], "api.internal", {}, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_is_verified_by_the_upstreams_settings(
    tmp_path: Path, names: list[str], host: str, tls: dict[str, object], why: str | None
) -> None:
    authority = Authority(tmp_path)
    if tls.pop("ca", False):
        tls["ca"] = str(authority.file)

    async def scene(server: Server) -> None:
        said = await over_tls(tls_upstream(server.port, host, **tls))
        if why is None:
            assert said is None
            assert f"Host: {host}:{server.port}\r\n".encode() in server.heads[0]
        else:
            assert said is not None
            assert said.startswith(f"its certificate is refused: {why}")

    play(scene, context=serving(authority.issue(*names)))


def test_the_edge_presents_its_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("edge.internal")

    async def scene(server: Server) -> None:
        tls: dict[str, object] = {"ca": str(authority.file)}
        assert await over_tls(tls_upstream(server.port, **tls)) is not None
        tls |= {"cert": str(own.cert), "key": str(own.key)}
        assert await over_tls(tls_upstream(server.port, **tls)) is None

    play(scene, context=serving(authority.issue("127.0.0.1"), authority.file))


def test_a_server_without_tls_fails(tmp_path: Path) -> None:
    async def scene(server: Server) -> None:
        said = await over_tls(tls_upstream(server.port, verify=False))
        assert said is not None
        assert said.startswith("TLS failed: ")

    play(scene, Server(b"HTTP/1.1 400 Bad Request\r\n\r\n", listens=False))


def test_renewed_certificates_apply_to_the_next_probe(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    file = tmp_path / "ca.pem"
    file.write_bytes(old.file.read_bytes())

    async def scene(server: Server) -> None:
        upstream = tls_upstream(server.port, ca=str(file))
        prober = Prober({"api": upstream})
        target = ProbeTarget("api", upstream.endpoints[0].url, "127.0.0.1", ProbeTerms("/", 5.0, upstream.tls))
        assert await prober(target) is not None
        file.write_bytes(new.file.read_bytes())
        prober.renew()
        assert await prober(target) is None
        file.write_text("broken")
        with capture_logs() as logs:
            prober.renew()
        assert [line["upstream"] for line in logs] == ["api"]
        assert await prober(target) is None, "the loaded certificates stay in use"

    play(scene, context=serving(new.issue("127.0.0.1")))


def test_missing_certificates_fail_the_probe(tmp_path: Path) -> None:
    async def scene() -> None:
        assert await over_tls(tls_upstream(1, ca=str(tmp_path / "gone"))) == "its certificates cannot be loaded"

    uvloop.run(scene())


def test_health_check_of_a_plain_endpoint_ignores_upstream_tls(tmp_path: Path) -> None:
    async def scene(server: Server) -> None:
        plain = Endpoint(url=f"http://127.0.0.1:{server.port}")
        upstream = Upstream(
            endpoints=(plain, Endpoint(url="https://127.0.0.1:1")),
            health=Health(path="/"),
            tls=UpstreamTls(server_name="api.internal"),
        )
        target = ProbeTarget("api", plain.url, "127.0.0.1", ProbeTerms("/", 5.0, upstream.tls))
        assert await Prober({"api": upstream})(target) is None

    play(scene)


def test_old_and_new_probe_terms_coexist_after_a_reload(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def scene(server: Server) -> None:
        old, new = tls_upstream(server.port), tls_upstream(server.port, ca=str(authority.file))
        prober = Prober({"api": old})
        url = old.endpoints[0].url
        targets = [ProbeTarget("api", url, "127.0.0.1", ProbeTerms("/", 5.0, upstream.tls)) for upstream in (old, new)]
        assert await prober(targets[1]) == "its certificates cannot be loaded"
        prober.follow(({"api": old}, ()), ({"api": new}, ()))
        assert "is refused" in str(await prober(targets[0]))
        assert await prober(targets[1]) is None
        prober.follow(({"api": new}, ()))
        assert await prober(targets[0]) == "its certificates cannot be loaded"
        assert await prober(targets[1]) is None

    play(scene, context=serving(authority.issue("127.0.0.1")))


# ---- bounds of answers


HEAD_BYTES = 16 << 10
"""The upstream's setting `head`."""


def answer_of(size: int) -> bytes:
    """Return an answer with a head of `size` bytes."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: "
    return start + b"a" * (size - len(start)) + b"\r\n\r\n"


def call_of(size: int, trailers_size: int = 0) -> bytes:
    """Return an answer of SERVING whose head or trailers have slightly more than the given bytes."""
    head = block([(b":status", b"200"), (b"content-type", b"application/grpc"), *[(b"x", b"~" * 97)] * (size // 100)])
    trailers = block([(b"grpc-status", b"0"), *[(b"x", b"~" * 97)] * (trailers_size // 100)])
    body = frame(DATA, 0, 1, b"\0\0\0\0\2\x08\x01")
    return settings() + framed(head, 0) + body + framed(trailers, END_STREAM)


def framed(whole: bytes, flags: int) -> bytes:
    """Return a field block, split into frames."""
    first, *rest = [whole[start : start + 16384] for start in range(0, len(whole), 16384)]
    frames = [frame(HEADERS, flags, 1, first), *[frame(CONTINUATION, 0, 1, part) for part in rest]]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, 1)


INTERIM = b"HTTP/1.1 103 Early Hints\r\nX-A: " + b"a" * 15_000 + b"\r\n\r\n"
FIELDS = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"a:\r\n" * 3000 + b"\r\n"
PROBES = {
    "head": ("", answer_of(HEAD_BYTES), answer_of(HEAD_BYTES + 1), "a head of more than 16384 bytes"),
    "many fields": ("", FIELDS, answer_of(HEAD_BYTES + 9000), "a head of more than 16384 bytes"),
    "interim answers": ("", INTERIM * 32 + OK, INTERIM * 33 + OK, "more than 32 interim answers"),
    "head of a call": ("a", call_of(HEAD_BYTES - 300), call_of(HEAD_BYTES + 300), "a head of more than 16384 bytes"),
    "trailers of a call": (
        "a",
        call_of(100, HEAD_BYTES - 800),
        call_of(100, HEAD_BYTES + 300),
        "trailers of more than 16384 bytes",
    ),
}
"""The probed service, an answer just below a bound, one above it, and the expected reason for the second."""


@pytest.mark.parametrize("name", PROBES)
def test_an_answer_to_a_probe_has_the_bounds_of_the_upstream(name: str) -> None:
    service, below, above, excess = PROBES[name]
    terms = ProbeTerms("/", 5.0, UpstreamTls(), service=service or None, head_bytes_max=HEAD_BYTES)
    prober = Prober({})

    async def scene(server: Server) -> None:
        target = ProbeTarget("api", f"http://127.0.0.1:{server.port}", "127.0.0.1", terms)
        assert await prober(target) is None
        server.answer = above
        assert await prober(target) == f"the health check's answer had {excess}"

    play(scene, Server(below))


@pytest.mark.parametrize("code", [b"\xff\xfe", b"", b"-1", b"9" * 60_000])
def test_an_invalid_grpc_status_gives_a_short_reason(code: bytes) -> None:
    call = HealthCall()
    call.on_trailers([STATUS + code])
    assert call.describe("api") == "no status of gRPC"
