"""nginx in front, which asks the edge about each request: its configuration is the one that the docs show."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.ask import ask
from tests.support.customers import key_of, people
from tests.support.edge import Edge
from tests.support.ports import HOST, Ports
from tests.support.process import Process
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.nginx

DOCS = (Path(__file__).parents[2] / "docs" / "authorize.md").read_text()
NGINX = """
daemon off;
master_process off;
user root;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream app {{ server {host}:{upstream}; }}
    server {{
        listen {host}:{port};
{locations}
    }}
}}
"""


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with closing(Ports(2)) as ports:
        yield ports


@pytest.fixture(scope="module")
def edge(folder: Path, upstream: Upstream, ports: Ports) -> Iterator[Edge]:
    asked, _ = ports.numbers
    with closing(Edge(folder / "asked", upstream.port)) as edge:
        listen = [f"{HOST}:{edge.port}", {"address": f"{HOST}:{asked}", "authorize": True}]
        settings = {"listen": listen, "trusted_proxies": [HOST], **people(few=["3/min"])}
        yield edge.start(**settings)


@pytest.fixture(scope="module")
def front(folder: Path, nginx: str, edge: Edge, upstream: Upstream, ports: Ports) -> Iterator[int]:
    """nginx that keeps what it has; its port."""
    asked, port = ports.numbers
    shown = re.search(r"```nginx\n(.*?)```", DOCS, re.DOTALL)
    assert shown is not None
    locations = shown[1].replace("127.0.0.1:8081", f"{HOST}:{asked}")
    own = folder / "front"
    own.mkdir()
    written = {"folder": own, "host": HOST, "port": port, "upstream": upstream.port, "locations": locations}
    (own / "nginx.conf").write_text(NGINX.format(**written))
    process = Process([nginx, "-p", own, "-c", own / "nginx.conf", "-e", "stderr"], own / "log")

    def answers() -> bool:
        try:
            return ask(port, "/").status == 401
        except OSError:
            return False

    try:
        until(lambda: answers() or not process.running, "nginx asks the edge")
        assert process.running, process.output
        yield port
    finally:
        process.stop()


def test_nginx_keeps_forwarding_and_the_edge_keeps_count(edge: Edge, front: int, upstream: Upstream) -> None:
    before = edge.usage().get("few", 0)
    key = {"X-API-Key": key_of("few")}
    for method, body in (("GET", b""), ("POST", b"x" * 100_000), ("PUT", b"y")):
        answer = ask(front, "/some/%C3%A4?echo=1&x=%2F", method=method, fields=key, body=body)
        assert answer.status == 200
        told = answer.json()
        assert (told["method"], told["length"]) == (method, len(body))
        assert told["target"] == "/some/%C3%A4?echo=1&x=%2F"
        assert ["X-Customer-Id", "few"] in told["fields"]
    limited = ask(front, "/", fields=key)
    assert limited.status == 429
    assert 1 <= int(limited["retry-after"]) <= 70
    assert edge.usage()["few"] == before + 3
    assert edge.limit("few")["used"] == 3


def test_nginx_lets_nobody_pass_whom_the_edge_refuses(edge: Edge, front: int, upstream: Upstream) -> None:
    received = sum(upstream.seen()["received"].values())
    assert ask(front, "/").status == 401
    assert ask(front, "/", fields={"X-API-Key": "wrong"}).status == 401
    # Neither by pretending to be who asks, nor at the listener that is for nginx.
    fields = {"X-Original-Method": "GET", "X-Original-URI": "/", "X-Customer-Id": "few"}
    assert ask(front, "/_edge", fields={**fields, "X-API-Key": key_of("few")}).status == 404
    assert ask(front, "/", fields=fields).status == 401
    assert sum(upstream.seen()["received"].values()) == received
