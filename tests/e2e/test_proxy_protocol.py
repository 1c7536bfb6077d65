"""HAProxy passes connections on with a header of the PROXY protocol."""

from pathlib import Path

import pytest

from loadtest.testbed.edge import StartEdge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until
from tests.support.companions import HAPROXY

CLIENT = "127.0.0.9"
ROUTES = [{"path": "/*", "upstream": "api", "auth": "none"}]
CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen edge
    bind {host}:{port}
    server edge {host}:{edge} {option} check check-send-proxy inter 200ms
"""


@pytest.mark.skipif(HAPROXY is None, reason="there is no HAProxy on this machine")
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_address_of_the_client_reaches_the_service(start_edge: StartEdge, tmp_path: Path, option: str) -> None:
    ports = Ports(2)
    port, listening = ports.numbers
    edge = start_edge(
        listen={"address": f"{HOST}:{listening}", "proxy_protocol": True},
        trusted_proxies=[HOST],
        workers=1,
        routes=ROUTES,
    )
    file = tmp_path / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(host=HOST, port=port, edge=listening, option=option))
    assert HAPROXY is not None
    proxy = Process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log")

    def is_served() -> bool:
        try:
            return ask(port, "/", source=CLIENT).status == 200
        except OSError:
            return False

    try:
        until(is_served, "HAProxy reaches the edge")
        answer = ask(port, "/?echo=1", source=CLIENT, fields={"X-Forwarded-For": "192.0.2.1"})
        assert [value for name, value in answer.json()["fields"] if name.lower() == "x-forwarded-for"] == [CLIENT]
        assert "connection refused" not in edge.output
    finally:
        proxy.stop(10)
        ports.close()
