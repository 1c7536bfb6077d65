"""Common clients in front of httpbin and nginx: the edge is invisible to them."""

import gzip
import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import content
from tests.e2e.alike import STAMPED, assert_alike
from tests.support.clients import CLIENTS, Send, with_http_client
from tests.support.services import LARGE, Httpbin, Nginx

ASKED = {"Host": "api.test", "User-Agent": "tests/1", "X-Own": 'a, "b"; c=1'}
KEYED = {**ASKED, "X-API-Key": key_of(UNLIMITED)}


@pytest.fixture(params=CLIENTS.values(), ids=list(CLIENTS))
def send(request: pytest.FixtureRequest) -> Send:
    """Each client in turn."""
    client: Send = request.param
    return client


def played(some: list[Any], more: list[Any]) -> list[Any]:
    """Return the pairs of client and request: every client for `some`, and one client for `more`, as all behave
    alike.
    """
    sent = {name: [*some, *more] if client is with_http_client else some for name, client in CLIENTS.items()}
    return [
        pytest.param(CLIENTS[name], what, id=f"{name}-{number}")
        for name, each in sent.items()
        for number, what in enumerate(each)
    ]


@pytest.mark.parametrize(
    ("send", "how"),
    played(
        [("GET", False), ("POST", False), ("POST", True)],
        [("PUT", False), ("PATCH", False), ("DELETE", False), ("DELETE", True)],
    ),
)
def test_a_request_arrives_as_it_was_sent(send: Send, how: tuple[str, bool], api: Edge, httpbin: Httpbin) -> None:
    method, chunked = how
    path = "/anything/a%20b/?q=1&q=%2F&empty="
    body = b"" if method == "GET" else b'{"some": ["json", 1]}'
    fields = {"Content-Type": "application/json"} if body else {}
    through = send(api.port, path, method=method, fields={**KEYED, **fields}, body=body, chunked=chunked)
    direct = send(httpbin.port, path, method=method, fields={**ASKED, **fields}, body=body, chunked=chunked)
    assert through.status == direct.status == 200
    assert echoed(through) == echoed(direct)


def echoed(answer: Answer) -> dict[str, Any]:
    """Return httpbin's report of the received request, without the edge's stamps."""
    body: dict[str, Any] = answer.json()
    assert key_of(UNLIMITED) not in answer.body.decode()
    body["headers"] = {
        name.lower(): value for name, value in body["headers"].items() if name.lower() not in {*STAMPED, "connection"}
    }
    return body


@pytest.mark.parametrize(
    ("send", "path"),
    played(
        ["/status/204", "/stream-bytes/70000?seed=7&chunk_size=3000"],
        [
            "/status/304",
            "/status/404",
            "/status/418",
            "/status/503",
            "/redirect-to?url=%2Felsewhere&status_code=307",
            "/absolute-redirect/2",
            "/cookies/set?a=1&b=2",
            "/response-headers?X-Twice=1&X-Twice=2&Server=their-own",
            "/encoding/utf8",
            "/bytes/70000?seed=7",
            "/range/5000?chunk_size=100",
        ],
    ),
)
def test_an_answer_arrives_as_it_was_given(send: Send, path: str, api: Edge, httpbin: Httpbin) -> None:
    through = send(api.port, path, fields=KEYED)
    direct = send(httpbin.port, path, fields=ASKED)
    assert_alike(through, direct)


@pytest.mark.nginx
@pytest.mark.parametrize(
    ("send", "what"),
    played(
        [
            ("/text.txt", "HEAD", {}),
            ("/chunked", "GET", {"Accept-Encoding": "gzip"}),
            ("/text.txt", "GET", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
        ],
        [
            ("/text.txt", "GET", {}),
            ("/text.txt", "GET", {"Accept-Encoding": "gzip"}),
            ("/text.txt", "GET", {"Range": "bytes=100-199"}),
            ("/text.txt", "GET", {"Range": "bytes=0-9,20-29"}),
            ("/text.txt", "GET", {"Range": "bytes=9999999-"}),
            ("/empty", "GET", {}),
            ("/moved", "GET", {}),
            ("/cookies", "GET", {}),
            ("/nothing", "GET", {}),
            ("/marked", "GET", {}),
            ("/not-there", "GET", {}),
            ("/text.txt", "DELETE", {}),
        ],
    ),
)
def test_nginx_answers_as_if_asked_directly(
    send: Send, what: tuple[str, str, dict[str, str]], site: Edge, files: Nginx
) -> None:
    path, method, fields = what
    asked = {**ASKED, **fields}
    through = send(site.port, path, method=method, fields=asked)
    direct = send(files.port, path, method=method, fields=asked)
    if "multipart/byteranges" in "".join(direct.all("content-type")):
        assert (through.status, len(through.body)) == (direct.status, len(direct.body))  # boundaries are random
        return
    assert_alike(through, direct)


def test_edge_leaves_compressed_answers_unchanged(send: Send, api: Edge) -> None:
    answer = send(api.port, "/gzip", fields=KEYED)
    assert answer["content-encoding"] == "gzip"
    assert answer["content-length"] == str(len(answer.body))
    assert b'"gzipped": true' in gzip.decompress(answer.body)


@pytest.mark.nginx
def test_a_large_file_arrives_whole(site: Edge, files: Nginx) -> None:
    answer = with_http_client(site.port, "/large", fields=ASKED)
    assert answer.status == 200
    assert answer["content-length"] == str(LARGE)
    assert answer.body == files.large


def test_a_large_answer_in_chunks_arrives_whole(send: Send, edge: Edge) -> None:
    answer = send(edge.port, f"/?size={LARGE}&chunked=1", fields=KEYED)
    assert answer.status == 200
    assert answer["transfer-encoding"] == "chunked"
    assert answer.body == content(LARGE)


@pytest.mark.parametrize(("send", "chunked"), played([True], [False]))
def test_a_large_upload_arrives_whole(send: Send, chunked: bool, edge: Edge, seed: int) -> None:
    body = random.Random(seed).randbytes(LARGE)
    answer = send(edge.port, "/up?echo=1", method="POST", fields=KEYED, body=body, chunked=chunked)
    assert answer.status == 200
    document = answer.json()
    assert (document["length"], document["sha256"]) == (LARGE, hashlib.sha256(body).hexdigest())
    framing = {name.lower(): value for name, value in document["fields"]}
    assert ("content-length" in framing) is not chunked
    assert ("transfer-encoding" in framing) is chunked


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_gets_100_continue_before_it_sends_its_body(edge: Edge, tmp_path: Path, seed: int) -> None:
    body = random.Random(seed).randbytes(2 << 20)
    (tmp_path / "body").write_bytes(body)
    command = ["curl", "-sv", "--noproxy", "*", "--expect100-timeout", "20", "--max-time", "30"]
    command += ["-H", "Expect: 100-continue", "-H", f"X-API-Key: {key_of(UNLIMITED)}"]
    command += ["--data-binary", f"@{tmp_path / 'body'}", f"http://{HOST}:{edge.port}/up?echo=1"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=40)
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert hashlib.sha256(body).hexdigest().encode() in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_does_not_send_a_body_that_is_refused_anyway(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(bytes(2 << 20))
    command = ["curl", "-sv", "--noproxy", "*", "--expect100-timeout", "20", "--max-time", "30"]
    command += ["-H", "Expect: 100-continue", "--write-out", "%{http_code} %{size_upload}"]
    command += ["--output", "/dev/null", "--data-binary", f"@{tmp_path / 'body'}", f"http://{HOST}:{edge.port}/up"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=40)
    assert done.stdout == b"401 0"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_speaks_http_1_0_and_keeps_connections(edge: Edge, tmp_path: Path) -> None:
    command = ["curl", "-s", "--noproxy", "*", "--max-time", "30", "-H", f"X-API-Key: {key_of(UNLIMITED)}"]
    url = f"http://{HOST}:{edge.port}"
    old = subprocess.run(
        [*command, "--http1.0", f"{url}/?size=100000&chunked=1"], capture_output=True, check=True, timeout=40
    )
    assert old.stdout == content(100_000)
    several = [*command, "--write-out", "%{http_code}%{num_connects} ", f"{url}/?size=0", f"{url}/?size=0&a"]
    assert subprocess.run(several, capture_output=True, check=True, timeout=40).stdout == b"2001 2000 "
    (tmp_path / "body").write_bytes(content(200_000))
    sent = [*command, "--http1.0", "--data-binary", f"@{tmp_path / 'body'}", f"{url}/up?echo=1"]
    body = json.loads(subprocess.run(sent, capture_output=True, check=True, timeout=40).stdout)
    assert (body["length"], body["sha256"]) == (200_000, hashlib.sha256(content(200_000)).hexdigest())


@pytest.mark.nginx
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_gets_the_trailers_of_an_answer(site: Edge, files: Nginx) -> None:
    command = ["curl", "-s", "--noproxy", "*", "--max-time", "30", "--dump-header", "-", "--output", "/dev/null"]
    for port in (files.port, site.port):
        url = f"http://{HOST}:{port}/trailers"
        heads = subprocess.run([*command, url], capture_output=True, check=True, timeout=40).stdout
        head, _, trailers = heads.partition(b"\r\n\r\n")
        assert b"X-Sum" not in head
        assert trailers.strip() == b"X-Sum: 42"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_resumes_a_download(site: Edge, files: Nginx, tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.write_bytes(files.large[: LARGE // 3])
    command = ["curl", "-s", "--noproxy", "*", "--max-time", "30", "--continue-at", "-", "--output", received]
    written = subprocess.run(
        [*map(str, command), "--write-out", "%{http_code} %{size_download}", f"http://{HOST}:{site.port}/large"],
        capture_output=True, check=True, timeout=40,
    ).stdout  # fmt: skip
    assert written == b"206 %d" % (LARGE - LARGE // 3)
    assert received.read_bytes() == files.large
