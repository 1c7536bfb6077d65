"""Memory that a worker uses for connections: little for a stalled one, less for an idle one, none for a closed one."""

import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.http_client import PATIENCE, Wire, send_until_stalled
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import memory_of
from loadtest.testbed.waiting import until

MIB = 1 << 20
FLOOD = 200 * MIB
"""Bytes that a sender offers as fast as the receiver reads them."""
IN_SOCKETS = 48 * MIB
"""Bytes of FLOOD that the kernel may hold in the four sockets on the path (tcp_rmem and tcp_wmem)."""
STALLED = 2 * MIB
"""Bytes of memory for a stalled transfer. One read and one write together take about 300 KiB."""
IDLE = 8 << 10
"""Bytes of memory for an idle connection."""
CONNECTIONS, ADDRESSES = 1000, 8
FIELDS = f"Host: a\r\nX-API-Key: {key_of(UNLIMITED)}\r\n"
ASKED = f"GET / HTTP/1.1\r\n{FIELDS}\r\n".encode()
CHUNK = f"Transfer-Encoding: chunked\r\n\r\n{FLOOD:x}\r\n"
SOCKET = (
    f"GET / HTTP/1.1\r\n{FIELDS}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Service:
    """A service whose sockets the test controls, behind an edge with one worker."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.ends = ends
        """Closes the sockets of the current test at its end."""
        self._listening = ends.enter_context(socket.create_server((HOST, 0), backlog=1024))
        self._listening.settimeout(PATIENCE)
        self.edge = Edge(folder, self._listening.getsockname()[1], workers=1)
        ends.enter_context(closing(self.edge)).start()
        (self.worker,) = self.edge.worker_pids()
        client, server = self.asked(ASKED)  # The memory of the first request belongs to the baseline.
        server.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000))
        assert len(client.hear().body) == 100_000
        client.socket.close()
        self._before = memory_of([self.worker])

    def connections(self) -> float:
        """Return the number of the edge's connections to clients and upstreams."""
        return total(self.edge.metrics(), "edge_connections")

    @property
    def hoard(self) -> int:
        """Bytes by which the worker has grown since the first request, at its largest (proc(5): VmHWM)."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.worker}/status").read_text().splitlines())
        return (int(status["VmHWM"].split()[0]) << 10) - self._before

    def asked(self, data: bytes) -> tuple[Wire, socket.socket]:
        """Send data from a new client. Return the client and the service's connection, which has read a head."""
        client = self.ends.enter_context(Wire(self.edge.port))
        client.send(data)
        server, _ = self._listening.accept()
        self.ends.enter_context(server)
        server.settimeout(PATIENCE)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = server.recv(1 << 16)
            assert piece
            head += piece
        return client, server

    def tunnel(self) -> tuple[Wire, socket.socket]:
        """Open a tunnel. Return its client and the service's connection."""
        client, server = self.asked(SOCKET)
        server.sendall(SWITCHED)
        while b"\r\n\r\n" not in client.socket.recv(1 << 16):
            pass
        return client, server


@pytest.fixture(scope="module")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ExitStack() as ends:
        yield Service(tmp_path_factory.mktemp("memory"), ends)


@pytest.fixture
def service(one_service: Service) -> Iterator[Service]:
    """The service, shared by all tests. Checks that a test leaves no connection on either side of the edge."""
    with ExitStack() as one_service.ends:
        yield one_service
    until(lambda: one_service.connections() == 0, "no connection is left", seconds=5)


def flooded(writer: socket.socket) -> None:
    """Send until the receiver stops reading. Assert that this happens long before FLOOD bytes."""
    assert send_until_stalled(writer, bytes(FLOOD)) < IN_SOCKETS


@pytest.mark.parametrize("framing", [f"Content-Length: {FLOOD}", "Transfer-Encoding: chunked", "X-Until: close"])
def test_an_unread_response_takes_little_memory(framing: str, service: Service) -> None:
    _, server = service.asked(ASKED)
    server.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    if "chunked" in framing:
        server.sendall(b"%x\r\n" % FLOOD)
    flooded(server)
    assert service.hoard < STALLED


@pytest.mark.parametrize("framing", [f"Content-Length: {FLOOD}\r\n\r\n", CHUNK])
def test_an_unread_request_takes_little_memory(framing: str, service: Service) -> None:
    client, _ = service.asked(f"POST / HTTP/1.1\r\n{FIELDS}{framing}".encode())
    flooded(client.socket)
    assert service.hoard < STALLED


@pytest.mark.parametrize("to", ["client", "service"])
def test_an_unread_tunnel_takes_little_memory(to: str, service: Service) -> None:
    client, server = service.tunnel()
    flooded(server if to == "client" else client.socket)
    assert service.hoard < STALLED


def idle_connection(edge: Edge, number: int, data: bytes) -> socket.socket:
    """Connect from one of several addresses and send the data. If it is a whole request, read its answer."""
    raw = socket.create_connection((HOST, edge.port), PATIENCE, (f"127.0.0.{number % ADDRESSES + 1}", 0))
    raw.sendall(data)
    answer = b""
    while data.endswith(b"\r\n\r\n") and not answer.endswith(b"\r\n\r\n00"):
        piece = raw.recv(1 << 16)
        assert piece, answer
        answer += piece
    return raw


@pytest.mark.parametrize("data", [ASKED, b"", b"GET / HTTP/1.1\r\nX-Begun: "], ids=["kept", "silent", "begun"])
def test_a_thousand_idle_connections_take_little_memory_each(data: bytes, start_edge: StartEdge) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(files, 2 * CONNECTIONS), most), most))
    edge = start_edge()
    assert edge.ask("/?size=100000", key=key_of(UNLIMITED)).status == 200
    workers = edge.worker_pids()
    with ExitStack() as ends:
        for number in range(200):  # The first connections also grow shared structures, so they are not counted.
            ends.enter_context(idle_connection(edge, number, data))
        before = memory_of(workers)
        for number in range(CONNECTIONS):
            ends.enter_context(idle_connection(edge, number, data))
        until(
            lambda: total(edge.metrics(), "edge_connections", side="client") >= CONNECTIONS, "all connections are open"
        )
        each = (memory_of(workers) - before) / CONNECTIONS
        print(f"{each / 1024:.2f} KiB for an idle connection")
        assert each < IDLE
        assert edge.ask(key=key_of(UNLIMITED)).status == 200
    until(lambda: total(edge.metrics(), "edge_connections", side="client") == 0, "no client is left", seconds=10)


def test_many_stalled_responses_take_little_memory_each(service: Service) -> None:
    count = 40
    stalled = [service.asked(ASKED) for _ in range(count)]
    waiting = [server for _, server in stalled]
    for server in waiting:
        server.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n".encode())
        server.setblocking(False)
    while writable := select.select([], waiting, [], 0.5)[1]:
        for server in writable:
            server.send(bytes(1 << 18))
    print(f"{service.hoard / count / 1024:.0f} KiB for a stalled answer")
    assert service.hoard < count * STALLED / 4
