"""An edge never writes or sends a key, regardless of the form of the request and of any error."""

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.problems import ConfigError
from loadtest.testbed.authority import Authority
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.http_client import PATIENCE, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

SECRET = "hush-6b1f"
"""A text in all keys and other secrets of these tests. Other texts do not contain it."""
CUSTOMERS = {"good": "free", "poor": "poor", "former": "free"}
KEYS = {name: f"{SECRET}-{name}" for name in (*CUSTOMERS, "nobody")}

BASIC = base64.b64encode(f"user:{KEYS['good']}".encode()).decode()
TRACES = (SECRET.encode(), BASIC.encode(), SECRET.encode().hex().encode(), base64.b64encode(SECRET.encode())[:10])
"""The encodings of a key. None of them may occur in an output."""

TROUBLES = {
    b"/nonsense": b"nonsense\r\n\r\n",
    b"/twice": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"/short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    b"/switch": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    b"/chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    b"/error": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    b"/closed": b"",
}
"""The bytes that an upstream sends before it closes the connection, by the path of the request."""
PATHS = ("/", "/x", "/poor", "/scoped", "/get", "/../..", "/%00", "/gone", "/troubled/silent", "/" + "x" * 70_000)
PATHS += tuple(f"/troubled{path.decode()}" for path in TROUBLES)


class Troubled(threading.Thread):
    """An upstream that fails in the way that the path of the request names."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server((HOST, 0))
        self.port: int = self.listening.getsockname()[1]
        self._kept: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
                asked = connection.recv(1 << 16)
                if b"/silent" in asked:
                    self._kept.append(connection)
                    continue
                with connection:
                    connection.sendall(next((said for path, said in TROUBLES.items() if path in asked), b""))
            except OSError:
                if self.listening.fileno() < 0:
                    return


@pytest.fixture
def edge(tmp_path: Path, upstream: Upstream) -> Iterator[Edge]:
    """Start an edge with many possible errors, and with a TLS listener besides the plain one."""
    pair = Authority(tmp_path).issue("edge.test")
    troubled, nobody, secure = Troubled(), Ports(1), Ports(1)
    troubled.start()
    keys = [{"sha256": hashlib.sha256(KEYS[name].encode()).hexdigest(), "customer": name} for name in CUSTOMERS]
    keys[-1]["expires"] = "2020-01-01"
    edge = Edge(
        tmp_path / "edge",
        upstream.port,
        tiers={"free": {"limits": []}, "poor": {"limits": [{"rate": "1/day"}]}},
        customers={name: {"tier": tier} for name, tier in CUSTOMERS.items()},
        keys=keys,
        access_log=str(tmp_path / "access.log"),
        security_headers=True,
        stamp_secret=f"{SECRET}-stamp",
        limits={"header_timeout": "300ms", "body": "1KiB", "body_idle": "300ms"},
        upstreams={
            "api": {"endpoints": [f"http://{HOST}:{upstream.port}"]},
            "troubled": {
                "endpoints": [f"http://{HOST}:{troubled.port}"],
                "timeouts": {"response_head": "300ms", "idle": "300ms"},
                "eject": {"errors": 2, "for": "1s"},
            },
            "gone": {"endpoints": [f"http://{HOST}:{nobody.numbers[0]}"]},
        },
        routes=[
            {"name": "all", "path": "/*", "upstream": "api"},
            {"name": "get", "path": "/get", "upstream": "api", "methods": ["PUT"]},
            {"name": "scoped", "path": "/scoped", "upstream": "api", "scopes": ["more"]},
            {"name": "troubled", "path": "/troubled/*", "upstream": "troubled"},
            {"name": "gone", "path": "/gone", "upstream": "gone"},
        ],
    )
    tls = {"address": f"{HOST}:{secure.numbers[0]}", "tls": {"cert": str(pair.cert), "key": str(pair.key)}}
    edge.settings["listen"] = [edge.settings["listen"], tls]
    edge.environ = {"DATABASE_PASSWORD": f"{SECRET}-environment", "TZ": "Europe/Berlin"}
    with closing(edge):
        yield edge.start()
    troubled.listening.close()
    nobody.close()
    secure.close()


def says(port: int, data: bytes, *, ends: bool = True) -> bytes:
    """Return all bytes that the edge sends until the connection ends. `ends`: the client sends nothing after `data`."""
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        came = bytearray()
        try:
            while part := connection.recv(1 << 16):
                came += part
        except ConnectionError:
            pass
        return bytes(came)


def ways(key: str, path: str) -> Iterator[bytes]:
    """Yield requests for a path with this key, in a header field or in the query."""
    first = f"GET {path} HTTP/1.1\r\nHost: h\r\n"
    yield f"{first}Authorization: Bearer {key}\r\n\r\n".encode()
    yield f"{first}X-API-Key: {key}\r\n\r\n".encode()
    yield f"GET {path}?key={key} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    yield f"POST {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nContent-Length: 3\r\n\r\nabc".encode()


def malformed(key: str) -> Iterator[bytes]:
    """Yield invalid heads with this key, and heads with this key in an unexpected place."""
    first, field = "GET /x HTTP/1.1\r\nHost: h\r\n", f"X-API-Key: {key}\r\n"
    for fields in (
        f"X-API-Key : {key}\r\n",
        f"X-API-Key {key}\r\n",
        f" {field}",
        f"{field} {key}\r\n",
        f"{key}\r\n",
        f"{key}: x\r\n",
        f"{field}{field}",
        f"Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n",
        f"Authorization: Basic {BASIC}\r\n",
        f"Authorization: {key}\r\n",
        f"X-API-Key: {key}\0\r\n",
        f"X-API-Key: {key}\n",
        f"{field}Content-Length: {key}\r\n",
        f"{field}Transfer-Encoding: {key}\r\n",
        f"{field}Transfer-Encoding: chunked\r\n\r\n{key}\r\n",
        f"{field}Expect: {key}\r\n",
        f"{field}Content-Length: 99999\r\n",
        f"{field}Connection: upgrade\r\nUpgrade: {key}\r\n",
        f"{field}Cookie: {key}\r\nX-Request-Id: {key}\r\ntraceparent: {key}\r\nX-Forwarded-For: {key}\r\n",
        "".join(f"X-{n}: {key}\r\n" for n in range(200)),
        f"X-Long: {key * 4000}\r\n",
    ):
        yield f"{first}{fields}\r\n".encode()
    for line in (
        f"{key} /gone HTTP/1.1",
        f"X-API-Key: {key}",
        f"GET http://user:{key}@h/ HTTP/1.1",
        f"GET {key} HTTP/1.1",
        f"GET / {key}",
        f"GET / HTTP/1.1 {key}",
        f"GET /?{key}#{key} HTTP/1.1",
        f"GET /?{key * 2000} HTTP/1.1",
        f"GET /%zz?{key} HTTP/1.1",
        key,
    ):
        yield f"{line}\r\nHost: h\r\n{field}\r\n".encode()


def unfinished(key: str) -> Iterator[bytes]:
    """Yield incomplete requests with this key."""
    for head in (f"GET /x HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}", f"GET /x?{key}"):
        yield head.encode()
    yield f"POST /x HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nContent-Length: 100\r\n\r\n{key}".encode()


def test_no_key_is_in_any_answer_log_or_figure(edge: Edge, tmp_path: Path) -> None:
    answers = []
    for key in KEYS.values():
        answers += [says(edge.port, way) for path in PATHS for way in ways(key, path)]
        answers += [says(edge.port, asked) for asked in malformed(key)]
        answers += [says(edge.port, asked, ends=False) for asked in unfinished(key)]
    secure_port = int(edge.settings["listen"][1]["address"].rpartition(":")[2])
    answers.append(says(secure_port, f"GET / HTTP/1.1\r\nX-API-Key: {KEYS['good']}\r\n\r\n".encode()))
    statuses = {status for answer in answers for status in re.findall(rb"^HTTP/1\.1 (\d+)", answer, re.M)}
    assert statuses >= {b"%d" % n for n in (200, 400, 401, 403, 405, 408, 413, 414, 417, 429, 431, 500, 501, 502, 504)}

    asked = [
        ask(edge.admin, path) for path in ("/status", "/metrics", "/usage", "/limits/good", "/limits/nobody", "/x")
    ]
    answers += [repr(answer).encode() for answer in asked]
    log = tmp_path / "access.log"
    logged = total(edge.metrics(), "edge_requests_total") * 0.99
    until(lambda: log.read_bytes().count(b"\n") >= logged, "the log is written")
    edge.end()
    lines = log.read_bytes()
    seen = {orjson.loads(line).get("customer") for line in lines.splitlines()}
    assert seen >= {"good", "poor"}, "the keys were known, and their requests logged"
    answers += [lines, edge.output.encode()]
    betrayed = [(trace, text[:2000]) for trace in TRACES for text in answers if trace in text]
    assert not betrayed


def test_no_secret_is_in_the_environment_of_a_worker(edge: Edge) -> None:
    pids = edge.worker_pids()
    assert pids
    for pid in pids:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"TZ=Europe/Berlin" in environ
        assert not any(SECRET.encode() in part for part in environ)


BROKEN = {
    "a key in the place of its hash": 'keys: [{{sha256: "{0}", customer: a}}]',
    "a field that there is not": 'keys: [{{key: "{0}", customer: a}}]',
    "keys as a list of texts": 'keys: ["{0}"]',
    "keys by name": 'keys: {{acme: "{0}"}}',
    "a secret that is a list": 'stamp_secret: ["{0}"]',
    "a secret that is a mapping": 'stamp_secret: {{a: "{0}"}}',
    "a secret twice": "stamp_secret: {0}\nstamp_secret: {0}-2",
    "a quote that does not end": 'stamp_secret: "{0}',
    "an escape that is none": 'stamp_secret: "{0}\\q"',
    "a colon": "stamp_secret: {0}: b",
    "a character that begins nothing": "stamp_secret: @{0}",
    "a variable that begins none": "stamp_secret: ${{{0}-}}",
    "a name that is misspelt": "stamp_secert: {0}",
    "a hub's password": "hub: redis://:{0}@h:99999",
    "another hub's password": "hub: http://:{0}@h",
    "an endpoint's password": "upstreams: {{api: {{endpoints: ['http://u:{0}@h:x']}}}}",
    "an endpoint's password, another scheme": "upstreams: {{api: {{endpoints: ['ftp://u:{0}@h']}}}}",
    "what is not supported yet": "usage: {{collector: 5, token: '{0}', tok: '{0}'}}\ncache_key: ['{0}']",
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_secret_appears_in_messages_about_a_configuration(tmp_path: Path, name: str) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(BROKEN[name].format(SECRET) + "\nroutes: [{path: /*, upstream: api}]\n")
    with pytest.raises(ConfigError) as errors:
        load_edge(file, {})
    assert str(errors.value)
    assert SECRET not in str(errors.value)
