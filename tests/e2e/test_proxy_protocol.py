"""Headers of the PROXY protocol from HAProxy to the edge, and from the edge to HAProxy and nginx."""

import socket
from pathlib import Path

import pytest

from loadtest.testbed.authority import Authority
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


SERVICES = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend plain
    bind {host}:{plain} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src]"
frontend tls
    bind {host}:{tls} accept-proxy ssl crt {crt}
    http-request return status 200 content-type text/plain lf-string "%[src]"
"""
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ }}
http {{
    access_log off;
    server {{ listen {host}:{nginx} proxy_protocol; location / {{ return 200 $proxy_protocol_addr; }} }}
}}
"""


@pytest.mark.nginx
@pytest.mark.skipif(HAPROXY is None, reason="there is no HAProxy on this machine")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_services_see_the_client_and_answer_probes(
    start_edge: StartEdge, tmp_path: Path, nginx: str, version: str
) -> None:
    ports = Ports(5)
    plain, tls, served, proxied, direct = ports.numbers
    authority = Authority(tmp_path)
    cert, key = authority.issue(HOST)
    pair = tmp_path / "pair.pem"
    pair.write_bytes(cert.read_bytes() + key.read_bytes())
    file = tmp_path / "haproxy.cfg"
    file.write_text(SERVICES.format(host=HOST, plain=plain, tls=tls, crt=pair))
    conf = tmp_path / "nginx.conf"
    conf.write_text(NGINX.format(folder=tmp_path, host=HOST, nginx=served))
    assert HAPROXY is not None
    services = [
        Process([HAPROXY, "-db", "-f", file], tmp_path / "haproxy.log"),
        Process([nginx, "-p", tmp_path, "-c", conf, "-e", "stderr"], tmp_path / "nginx.log"),
    ]

    def accept_connections() -> bool:
        return all(socket.socket().connect_ex((HOST, port)) == 0 for port in (plain, tls, served))

    urls = {"plain": f"http://{HOST}:{plain}", "tls": f"https://{HOST}:{tls}", "nginx": f"http://{HOST}:{served}"}
    common = {"proxy_protocol": version, "health": {"path": "/", "every": "200ms"}}
    try:
        until(accept_connections, "the services accept connections")
        edge = start_edge(
            listen=[
                {"address": f"{HOST}:{proxied}", "proxy_protocol": True},
                f"[::1]:{direct}",
                f"{HOST}:{direct}",
            ],
            trusted_proxies=["127.0.0.2"],
            workers=1,
            upstreams={
                name: {
                    "endpoints": [url],
                    **common,
                    **({"tls": {"ca": str(authority.file)}} if name == "tls" else {}),
                }
                for name, url in urls.items()
            },
            routes=[{"path": f"/{name}", "upstream": name, "auth": "none"} for name in urls],
        )
        for name in urls:
            for source in (CLIENT, "127.0.0.10"):
                assert ask(direct, f"/{name}", source=source).body.decode() == source
            for stated, sees in (("198.51.100.7", "198.51.100.7"), ("2001:db8::7", "2001:db8::7")):
                fields = {"X-Forwarded-For": stated}
                assert ask(direct, f"/{name}", source="127.0.0.2", fields=fields).body.decode() == sees
            assert _ask_raw(socket.create_connection(("::1", direct)), name) == "::1"
            through = socket.create_connection((HOST, proxied), source_address=("127.0.0.2", 0))
            through.sendall(b"PROXY TCP6 2001:db8::8 2001:db8::1 4000 80\r\n")
            assert _ask_raw(through, name) == "2001:db8::8"
        assert "upstream address is down" not in edge.output
    finally:
        for service in services:
            service.stop(10)
        ports.close()


def _ask_raw(connection: socket.socket, name: str) -> str:
    """Return the body of an answer over a connection that closes after it."""
    with connection, connection.makefile("rb") as answer:
        connection.sendall(f"GET /{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return answer.read().partition(b"\r\n\r\n")[2].decode()
