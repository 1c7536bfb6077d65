"""Common clients get equal answers over HTTP/2 and HTTP/1.1; a browser uses one connection for all requests."""

import asyncio
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import total
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.e2e.browser import Chromium, tab
from tests.support.http2_site import Http2Site

KEY = key_of(UNLIMITED)
RESOURCES = 200


class Request(NamedTuple):
    """A request. `size` is the length of its body of the letter u; 0: no body."""

    method: str
    target: str
    size: int = 0


REQUESTS = [
    Request("GET", "/"),
    Request("GET", "/?size=0"),
    Request("GET", "/?size=100000"),
    Request("GET", "/?size=1000000&chunked=1"),
    Request("GET", "/slow?size=3000&wait=50"),
    Request("HEAD", "/?size=5000"),
    Request("GET", "/?status=204"),
    Request("GET", "/?status=304"),
    Request("GET", "/?status=404&size=40"),
    Request("GET", "/?status=503&size=40"),
    Request("POST", "/echo?echo=1", 10),
    Request("PUT", "/echo?echo=1", 300_000),
    Request("DELETE", "/echo?echo=1"),
]

Answer = tuple[int, object]
"""A status, and the body or the upstream's report of the request."""


def read_answer(status: int, body: bytes) -> Answer:
    if body.startswith(b'{"method"'):
        seen = json.loads(body)
        return status, [seen[name] for name in ("method", "version", "target", "length", "sha256")]
    return status, hashlib.sha256(body).hexdigest()


async def ask_by_httpx(site: Http2Site, requests: list[Request], *, http2: bool = True) -> list[Answer]:
    async with httpx.AsyncClient(verify=site.authority.trusted(), http2=http2, timeout=30) as client:

        async def ask(request: Request) -> Answer:
            content = b"u" * request.size if request.size else None
            answer = await client.request(
                request.method, site.url + request.target, headers={"x-api-key": KEY}, content=content
            )
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            return read_answer(answer.status_code, answer.content)

        return await asyncio.gather(*map(ask, requests))


def by_httpx(site: Http2Site, requests: list[Request], _: Path) -> list[Answer]:
    return asyncio.run(ask_by_httpx(site, requests))


def run(command: list[str | Path], stdin: bytes = b"") -> bytes:
    ended = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


def by_curl(site: Http2Site, requests: list[Request], folder: Path) -> list[Answer]:
    answers = []
    for method, target, size in requests:
        body = folder / "body"
        body.write_bytes(b"")
        command: list[str | Path] = ["curl", "-sS", "--http2", "--cacert", site.authority.file, "-o", body]
        command += ["-H", f"x-api-key: {KEY}", "-w", "%{http_version} %{http_code}"]
        command += ["-I"] if method == "HEAD" else ["-X", method]
        command += ["--data-binary", "@-"] if size else []
        version, status = run([*command, site.url + target], b"u" * size).split()
        assert version == b"2"
        answers.append(read_answer(int(status), b"" if method == "HEAD" else body.read_bytes()))
    return answers


def by_nghttp(site: Http2Site, requests: list[Request], folder: Path) -> list[Answer]:
    answers = []
    for method, target, size in requests:
        command: list[str | Path] = ["nghttp", "-H", f"x-api-key: {KEY}", "-H", f":method: {method}"]
        if size:
            (folder / "sent").write_bytes(b"u" * size)
            command += ["-d", folder / "sent"]
        frames = run([*command, "-nv", site.url + target])
        status = re.search(rb":status: (?:\x1b\[0m)?(\d+)", frames)
        assert status is not None
        answers.append(read_answer(int(status[1]), run([*command, site.url + target])))
    return answers


def by_node(site: Http2Site, requests: list[Request], _: Path) -> list[Answer]:
    asked = json.dumps([request._asdict() for request in requests]).encode()
    script = Path(__file__).with_name("http2_client.js")
    answers = json.loads(run(["node", script, site.url, site.authority.file, KEY], asked))
    return [read_answer(answer["status"], base64.b64decode(answer["body"])) for answer in answers]


def by_lines(command: list[str | Path], site: Http2Site, requests: list[Request]) -> list[Answer]:
    text = "".join(f"{method} {target} {size}\n" for method, target, size in requests)
    answers = run([*command, site.url, site.authority.file, KEY], text.encode()).splitlines()
    return [
        read_answer(int(status), base64.b64decode(body))
        for status, _, body in (answer.partition(b" ") for answer in answers)
    ]


def by_go(site: Http2Site, requests: list[Request], _: Path) -> list[Answer]:
    return by_lines(["go", "run", Path(__file__).with_name("http2_client.go")], site, requests)


def by_java(site: Http2Site, requests: list[Request], _: Path) -> list[Answer]:
    return by_lines(["java", Path(__file__).with_name("Http2Client.java")], site, requests)


def needs(program: str, reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


CLIENTS = [
    pytest.param(by_httpx, id="httpx"),
    pytest.param(by_curl, id="curl", marks=needs("curl", "curl is not on this machine")),
    pytest.param(by_nghttp, id="nghttp", marks=needs("nghttp", "nghttp is not on this machine")),
    pytest.param(by_node, id="node", marks=needs("node", "there is no Node here")),
    pytest.param(by_go, id="go", marks=needs("go", "there is no Go here")),
    pytest.param(by_java, id="java", marks=needs("java", "there is no Java here")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Http2Site]:
    routes = [
        {"name": "open", "path": "/open/*", "upstream": "api", "auth": "none"},
        {"name": "all", "path": "/*", "upstream": "api"},
    ]
    with closing(Http2Site(tmp_path_factory.mktemp("http2"), upstream, routes)) as site:
        yield site


@pytest.mark.parametrize("client", CLIENTS)
def test_each_answer_is_that_of_http11(
    site: Http2Site, tmp_path: Path, client: Callable[[Http2Site, list[Request], Path], list[Answer]]
) -> None:
    older = asyncio.run(ask_by_httpx(site, REQUESTS, http2=False))
    assert [status for status, _ in older] == [200] * 6 + [204, 304, 404, 503] + [200] * 3
    assert client(site, REQUESTS, tmp_path) == older


@needs("curl", "curl is not on this machine")
def test_curl_has_fifty_requests_at_a_time_over_one_connection(site: Http2Site) -> None:
    before = total(site.edge.metrics(), "edge_http2_streams_total")
    command = ["curl", "-sS", "-Z", "--parallel-max", "50", "--http2", "--cacert", str(site.authority.file)]
    command += ["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"]
    lines = run([*command, f"{site.url}/open/[1-100]?size=20000&wait=5"]).split(b"\n")
    assert sorted(set(lines)) == [b"", b"200 0", b"200 1"]
    assert lines.count(b"200 1") == 1, "the client opens one connection"
    until(
        lambda: total(site.edge.metrics(), "edge_http2_streams_total") == before + 100, "the worker counts its streams"
    )


@pytest.mark.chromium
def test_a_browser_loads_two_hundred_resources_over_one_connection(site: Http2Site, browser: Chromium) -> None:
    async def visit() -> None:
        async with asyncio.timeout(60), tab(browser) as page:
            await page.call("Security.setIgnoreCertificateErrors", ignore=True)
            await page.goto(f"{site.url}/open/page")
            sizes = await page.run(
                f"const ask = n => fetch(`/open/${{n}}?size=${{n * 37}}`).then(answer => answer.arrayBuffer());"
                f"const all = await Promise.all([...Array({RESOURCES}).keys()].map(ask));"
                "return all.map(each => each.byteLength)"
            )
            assert sizes == [number * 37 for number in range(RESOURCES)]
            mine = [response for response in page.responses if "/open/" in response["url"]]
            assert [response["protocol"] for response in mine] == ["h2"] * (RESOURCES + 1)
            assert len({response["connectionId"] for response in mine}) == 1
            assert len({response["headers"]["x-request-id"] for response in mine}) == RESOURCES + 1

    asyncio.run(visit())


def test_a_client_that_offers_no_protocol_gets_http11(site: Http2Site) -> None:
    """TLS without ALPN: a server may not answer in a protocol that the client has not chosen."""
    program = (
        "import socket, ssl, sys\n"
        "context = ssl.create_default_context(cafile=sys.argv[2])\n"
        "plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)\n"
        "with context.wrap_socket(plain, server_hostname='127.0.0.1') as wire:\n"
        "    wire.sendall(b'GET /open/ HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "    print(wire.selected_alpn_protocol(), wire.recv(15).decode())\n"
    )
    command = [sys.executable, "-c", program, str(site.secure_port), str(site.authority.file)]
    assert run(command) == b"None HTTP/1.1 200 OK\n"
    assert site.url == f"https://{HOST}:{site.secure_port}"
