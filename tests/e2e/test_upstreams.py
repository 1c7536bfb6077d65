"""Upstreams that fail, return, move and are replaced: real workers, real names, real stops of services."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from loadtest.testbed.authority import Authority, Pair
from loadtest.testbed.edge import COMMAND, Edge, StartEdge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import kill
from loadtest.testbed.waiting import until

OPEN = [{"name": "all", "path": "/*", "upstream": "api", "auth": "none"}]
HEALTH = {"path": "/healthz", "every": "500ms"}


class Service(ThreadingHTTPServer):
    """A service that answers with its name. It can stop, and start again on its port."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, name: str, host: str = HOST, port: int = 0) -> None:
        super().__init__((host, port), Answer)
        self.name = name
        self.answered: Counter[str] = Counter()
        self.connections: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore broken connections; report all other errors."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def die(self) -> None:
        """Stop like a killed process: the port is closed, and every connection is cut."""
        self.shutdown()
        self.server_close()
        for connection in tuple(self.connections):
            try:
                connection.shutdown(2)
            except OSError:
                pass
        self._thread.join()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # An answer goes out at once: who dies in the midst of one is noticed, and rightly.
    server: Service

    def do_GET(self) -> None:
        body = self.server.name.encode()
        self.server.answered[self.path] += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def services(*names: str, host: str = HOST) -> Iterator[list[Service]]:
    """Run services with these names. Those still running stop with the context."""
    made = [Service(name, host) for name in names]
    try:
        yield made
    finally:
        for service in made:
            service.die()


def upstreams(*endpoints: str, **settings: Any) -> dict[str, Any]:
    """Return the upstream `api` with these endpoints, and all routes to it."""
    return {"upstreams": {"api": {"endpoints": list(endpoints), **settings}}, "routes": OPEN}


def states(edge: Edge) -> dict[str, float]:
    """Return how many addresses are up and down, from the metrics."""
    samples = edge.metrics()
    return {state: total(samples, "edge_upstream_endpoints", upstream="api", state=state) for state in ("up", "down")}


def addresses(edge: Edge) -> list[tuple[str, str, bool, str]]:
    """Return the upstream's addresses in `/status`: URL, address, up or not, reason."""
    return [
        (endpoint["url"], known["address"], known["up"], known["why"])
        for endpoint in edge.status()["upstreams"]["api"]
        for known in endpoint["addresses"]
    ]


def served_by(edge: Edge, times: int = 40) -> Counter[bytes]:
    """Count the services that answer this many requests; all answers must be 200.

    Each request has a connection of its own, so that all workers take part.
    """
    answers = [edge.ask("/who") for _ in range(times)]
    assert {answer.status for answer in answers} == {200}, Counter(answer.status for answer in answers)
    return Counter(answer.body for answer in answers)


class Load:
    """GETs from several threads over persistent connections, until the context ends."""

    def __init__(self, edge: Edge, threads: int = 4) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._edge = edge
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        connection = HTTPConnection(HOST, self._edge.port, timeout=15)
        while not self._over.is_set():
            said: int | str
            try:
                connection.request("GET", "/load")
                answer = connection.getresponse()
                answer.read()
                said = answer.status
            except (OSError, HTTPException) as failure:
                said = repr(failure)
                connection.close()
            with self._lock:
                self.statuses[said] += 1
        connection.close()

    def more(self, n: int = 200) -> None:
        """Wait until this many more requests are answered."""
        expected = self.statuses.total() + n
        until(lambda: self.statuses.total() >= expected, f"{n} more requests are answered")

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


# ---- health


def test_endpoint_outage_and_return_fail_no_request(start_edge: StartEdge) -> None:
    with services("one", "two") as (one, two):
        edge = start_edge(**upstreams(one.url, two.url, health=HEALTH))
        assert set(served_by(edge)) == {b"one", b"two"}
        assert states(edge) == {"up": 2, "down": 0}
        with Load(edge) as load:
            load.more()
            one.die()
            until(lambda: states(edge) == {"up": 1, "down": 1}, "its death is noticed")
            load.more()
            assert (one.url, HOST, False, "connection refused") in addresses(edge)
            back = Service("one again", port=one.port)
            try:
                until(lambda: states(edge) == {"up": 2, "down": 0}, "its return is noticed")
                until(lambda: back.answered["/load"] > 20, "the returned endpoint has its share")
                load.more()
            finally:
                back.die()
                load.more()
        assert set(load.statuses) == {200}, load.statuses
        assert "upstream address is down" in edge.output
        assert "upstream address is up" in edge.output


def test_endpoint_down_at_the_supervisors_death_recovers(start_edge: StartEdge) -> None:
    with services("one", "two") as (one, two):
        edge = start_edge(**upstreams(one.url, two.url, health=HEALTH))
        one.die()
        two.die()
        until(lambda: states(edge) == {"up": 0, "down": 2}, "both deaths are noticed")
        until(lambda: {edge.ask("/who").status for _ in range(10)} == {503}, "all workers are told of them")
        workers = len(edge.worker_pids())
        kill(edge.supervisor.pid)
        until(lambda: edge.output.count("the supervisor is lost") == workers, "all workers know that it is")
        again = [Service("one again", port=one.port)]
        try:
            assert set(served_by(edge)) == {b"one again"}
            again.append(Service("two again", port=two.port))
            with Load(edge) as load:
                load.more()
                again[0].die()
                load.more()
            assert set(load.statuses) == {200}, load.statuses
            assert set(served_by(edge)) == {b"two again"}
        finally:
            for service in again:
                service.die()


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and sends nothing."""
    with socket.create_server((HOST, 0), backlog=64) as listening:
        yield f"http://{HOST}:{listening.getsockname()[1]}"


def test_silent_service_does_not_delay_the_start(start_edge: StartEdge, silent: str) -> None:
    with services("one") as (one,):
        edge = start_edge(**upstreams(one.url, silent, health={"path": "/healthz", "every": "30s"}))
        assert served_by(edge) == {b"one": 40}
        until(lambda: (silent, HOST, False, "no answer within 5 s") in addresses(edge), "its time is over")
        assert served_by(edge) == {b"one": 40}


def test_an_edge_can_be_stopped_while_it_waits_for_the_first_probes(tmp_path: Path, silent: str) -> None:
    edge = Edge(tmp_path / "edge", 1, **upstreams(silent, health=HEALTH | {"every": "30s"}))
    try:
        supervisor = edge.begin()
        until(lambda: "edge starting" in edge.output, "the edge has started")
        assert supervisor.wait_after(signal.SIGTERM, 10.0) == 0
        assert "worker ready" not in edge.output
    finally:
        edge.close()


# ---- names


class Hosts:
    """A hosts file for some processes, in a mount namespace; it may change while they run."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hosts"
        self.write()

    def write(self, **names: list[str]) -> None:
        """Set the names and addresses; `a_test` stands for a.test."""
        lines = [f"{address} {name.replace('_', '.')}" for name, known in names.items() for address in known]
        # Rewrite the file in place: the mount holds the file, not its name.
        self.file.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    @property
    def command(self) -> tuple[str, ...]:
        """The prefix of a command that runs with this hosts file."""
        mount = f'mount --bind "{self.file}" /etc/hosts && exec "$@"'
        return (shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")

    def works(self) -> bool:
        """Return whether this machine can give processes a hosts file."""
        self.write(works_test=["127.0.0.9"])
        look = "import socket; print(socket.gethostbyname('works.test'))"
        try:
            result = subprocess.run([*self.command, sys.executable, "-c", look], capture_output=True, check=False)
        except OSError:
            return False
        return result.stdout == b"127.0.0.9\n"


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Edges of this test resolve names with their own hosts file."""
    made = Hosts(tmp_path)
    if not made.works():
        pytest.skip("this machine gives no process a hosts file of its own (unshare --mount)")
    monkeypatch.setattr("loadtest.testbed.edge.COMMAND", (*made.command, *COMMAND))
    return made


def test_a_name_that_moves_is_followed(start_edge: StartEdge, hosts: Hosts) -> None:
    with services("old", host="127.0.0.2") as (old,):
        new = Service("new", "127.0.0.3", old.port)
        try:
            hosts.write(api_test=["127.0.0.2"])
            edge = start_edge(**upstreams(f"http://api.test:{old.port}"))
            assert served_by(edge) == {b"old": 40}
            with Load(edge) as load:
                load.more()
                hosts.write(api_test=["127.0.0.3"])
                until(lambda: set(served_by(edge, 10)) == {b"new"}, "the new address is asked")
                assert addresses(edge) == [(f"http://api.test:{old.port}", "127.0.0.3", True, "")]
                load.more()
                hosts.write()  # the name is gone: the last known addresses stay
                until(lambda: total(edge.metrics(), "edge_dns_failures_total", upstream="api") >= 1, "look-ups fail")
                load.more()
            assert set(load.statuses) == {200}, load.statuses
        finally:
            new.die()


# ---- certificates


def certificate(port: int, authority: Authority) -> int:
    """Return the serial number of a listener's certificate."""
    context = ssl.create_default_context(cafile=authority.file)
    with (
        socket.create_connection((HOST, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="api.test") as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def serial(pair: Pair) -> int:
    """Return the serial number of the certificate in a file."""
    return x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number


def test_a_certificate_that_is_replaced_is_shown_to_new_clients(start_edge: StartEdge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, new = authority.issue("api.test", days=5), authority.issue("api.test", days=90)
    edge = start_edge()
    edge.end()
    listen = [{"address": f"{HOST}:{edge.port}", "tls": {"cert": str(pair.cert), "key": str(pair.key)}}]
    edge.start(listen=listen)
    assert {certificate(edge.port, authority) for _ in range(10)} == {serial(pair)}
    old = serial(pair)
    left = total(edge.metrics(), "edge_tls_expiry_seconds", name=str(pair.cert))
    assert 4.9 * 86400 < left < 5 * 86400
    attention = [json.loads(line) for line in edge.output.splitlines() if "certificate needs attention" in line]
    assert attention[0]["certificate"].startswith("expires in 4 days")
    os.replace(new.cert, pair.cert)
    until(lambda: "changed certificates cannot be used" in edge.output, "the mismatch is noticed")
    assert {certificate(edge.port, authority) for _ in range(10)} == {old}
    os.replace(new.key, pair.key)
    until(lambda: {certificate(edge.port, authority) for _ in range(10)} == {serial(pair)}, "the new one is shown")
    assert total(edge.metrics(), "edge_tls_expiry_seconds", name=str(pair.cert)) > 80 * 86400
