"""TLS with the clients that people use: to the edge, from one edge to another, and while certificates change."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.edge.proxy.authority import Authority

KEYED = {"X-API-Key": key_of(UNLIMITED)}


@dataclass(frozen=True)
class Secure:
    """An edge with TLS on an additional port, and the authority of its certificate."""

    edge: Edge
    port: int
    authority: Authority

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@pytest.fixture
def secure(tmp_path: Path, upstream: Upstream) -> Iterator[Secure]:
    """With two workers."""
    authority = Authority(tmp_path)
    cert, key = authority.issues("localhost", HOST)
    with closing(Ports(1)) as ports, closing(Edge(tmp_path / "edge", upstream.port)) as edge:
        (port,) = ports.numbers
        listener = {"address": f"{HOST}:{port}", "tls": {"cert": str(cert), "key": str(key)}}
        edge.start(listen=[edge.settings["listen"], listener])
        yield Secure(edge, port, authority)


def test_requests_and_httpx_and_aiohttp_and_curl_are_served(secure: Secure) -> None:
    url, ca = f"{secure.url}/", str(secure.authority.file)
    with requests.Session() as session:
        session.trust_env, session.verify = False, ca
        assert [session.get(url, headers=KEYED).status_code for _ in range(5)] == [200] * 5
    with httpx.Client(verify=secure.authority.trusted(), http2=False) as client:
        assert [client.get(url, headers=KEYED).status_code for _ in range(5)] == [200] * 5
    assert asyncio.run(by_aiohttp(url, secure.authority.trusted())) == [200] * 20
    curl = shutil.which("curl")
    if curl is not None:
        asked = [curl, "-sS", "--cacert", ca, "-H", f"X-API-Key: {KEYED['X-API-Key']}", "-o", "/dev/null", "-w"]
        result = subprocess.run(
            [*asked, "%{http_code} %{http_version}", url], capture_output=True, text=True, check=True
        )
        assert result.stdout == "200 2"


async def by_aiohttp(url: str, context: ssl.SSLContext) -> list[int]:
    """Twenty at once."""

    async def one(session: aiohttp.ClientSession) -> int:
        async with session.get(url, headers=KEYED, ssl=context) as answer:
            await answer.read()
            return answer.status

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(one(session) for _ in range(20)))


def test_edge_forwards_to_another_edge_over_tls(secure: Secure, tmp_path: Path) -> None:
    tls = {"ca": str(secure.authority.file)}
    api = {"endpoints": [f"https://localhost:{secure.port}"], "tls": tls, "forward_key": True}
    with closing(Edge(tmp_path / "front", 0, upstreams={"api": api})) as front:
        front.start()
        answers = [front.ask("/", fields=KEYED).status for _ in range(20)]
        assert answers == [200] * 20
        assert total(front.metrics(), "edge_upstream_errors_total") == 0


def test_upstream_with_an_untrusted_certificate_gets_no_request(secure: Secure, tmp_path: Path) -> None:
    api = {"endpoints": [f"https://localhost:{secure.port}"]}
    with closing(Edge(tmp_path / "front", 0, upstreams={"api": api})) as front:
        front.start()
        answer = front.ask("/", fields=KEYED)
        assert answer.status == 502
        assert answer["proxy-status"] == "edgeproxy; error=tls_certificate_error"


def test_all_workers_show_a_certificate_that_was_replaced(secure: Secure) -> None:
    before = shown(secure)
    secure.authority.issues("localhost", HOST)
    seen: list[str] = []

    def ten_in_a_row() -> bool:
        seen.append(shown(secure))
        return len(seen) >= 10 and before not in seen[-10:]

    until(ten_in_a_row, "every worker shows the new one", seconds=20)
    assert len(set(seen)) == 2


def shown(secure: Secure) -> str:
    """The certificate that a new connection gets."""
    return ssl.get_server_certificate((HOST, secure.port), ca_certs=str(secure.authority.file))
