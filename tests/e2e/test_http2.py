"""HTTP/2 at a whole edge: under TLS with the clients that people use, and limits over all workers."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from loadtest.testbed.customers import UNLIMITED, key_of, people
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import Upstream
from tests.contract.stage import connect
from tests.edge.proxy.authority import Authority
from tests.support.http2_wire import Http2Wire

KEYED = {"X-API-Key": key_of(UNLIMITED)}


@pytest.fixture
def edge(tmp_path: Path, upstream: Upstream) -> Iterator[Edge]:
    """With four workers."""
    with closing(Edge(tmp_path / "edge", upstream.port, workers=4)) as edge:
        edge.settings["listen"] = {"address": f"{HOST}:{edge.port}", "http2": True}
        yield edge


def test_tls_clients_negotiate_http2_or_http1(edge: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issues("localhost", HOST)
    edge.settings["listen"]["tls"] = {"cert": str(cert), "key": str(key)}
    edge.start()
    url = f"https://localhost:{edge.port}/"
    for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        with httpx.Client(verify=authority.trusted(), http2=http2) as client:
            answers = [client.get(url, headers=KEYED) for _ in range(5)]
        assert [(answer.status_code, answer.http_version) for answer in answers] == [(200, version)] * 5
    curl = shutil.which("curl")
    assert curl is not None
    command = [
        curl,
        "--silent",
        "--cacert",
        str(authority.file),
        "--write-out",
        "%{http_version}",
        "--output",
        "/dev/null",
    ]
    for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
        done = subprocess.run([*command, option, url], capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == version


def test_a_limit_is_exact_over_streams_of_all_workers(edge: Edge) -> None:
    edge.start(**people(acme=["60/min"]))
    fields = ("x-api-key", key_of("acme"))

    async def ask(count: int) -> list[int]:
        client = await Http2Wire(await connect(edge.port)).begins()
        numbers = [await client.begins_request("GET", "/", fields) for _ in range(count)]
        statuses = [(await client.answer_of(number)).status for number in numbers]
        client.closes()
        return statuses

    async def ask_all() -> list[int]:
        return [status for some in await asyncio.gather(*(ask(30) for _ in range(10))) for status in some]

    statuses = asyncio.run(ask_all())
    assert (statuses.count(200), statuses.count(429)) == (60, 240)
    assert total(edge.metrics(), "edge_requests_total", code="200") == 60
