"""Memory of what serves: idle, with many idle connections that have each had one answer, and with many customers."""

import resource
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.load import wrk
from loadtest.bench.measure.crowd import Crowd
from loadtest.bench.measure.rounds import list_crowd_peers
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.scenario import SCENARIOS, SMALL_ANSWER, Scenario
from loadtest.bench.stage import Stage

_PER_ADDRESS = 250
"""Idle connections from one address. There are bounds on connections per address."""
_REFUSED_AT_MOST = 0.01
"""The share of first requests that may be refused: on a busy machine some wait too long for their rows."""


@dataclass(frozen=True)
class Footprint:
    """Bytes: resident, proportional share, private (proc_pid_smaps(5)). The kernel's own buffers are not in it."""

    rss: int
    pss: int
    private: int

    def __add__(self, other: "Footprint") -> "Footprint":
        return Footprint(self.rss + other.rss, self.pss + other.pss, self.private + other.private)


@dataclass(frozen=True)
class Memory:
    """Of the processes that serve; `connection` is bytes for each idle connection, `control` the others' memory."""

    peer: str
    idle: Footprint
    control: Footprint
    connection: float


@dataclass(frozen=True)
class CrowdMemory:
    """Memory once each customer has sent a request: of the processes that serve, and of the others."""

    peer: str
    customers: int
    serving: Footprint
    control: Footprint

    @property
    def together(self) -> Footprint:
        """The memory of all processes. Its RSS counts shared pages once for each."""
        return self.serving + self.control


def parse(smaps_rollup: str) -> Footprint:
    """The text of `/proc/PID/smaps_rollup`."""
    kib: dict[str, int] = {}
    for line in smaps_rollup.splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith("kB"):
            kib[name] = int(rest.split()[0])
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return Footprint(*(each << 10 for each in (kib["Rss"], kib["Pss"], private)))


def of_processes(pids: Iterable[int]) -> Footprint:
    total = Footprint(0, 0, 0)
    for pid in pids:
        total += parse(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return total


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Memory], dict[str, str]]:
    """The memory of each peer, and by name why one has none."""
    allow_files(2 * stage.options.idle)
    found: list[Memory] = []
    failures: dict[str, str] = {}
    for peer in peers:
        say(f"memory: {peer.name}")
        try:
            with stage.serving(peer) as running:
                found.append(_of_peer(peer.name, running, stage.options.idle))
        except (OSError, RuntimeError) as error:
            failures[peer.name] = f"memory: {error}"
    return found, failures


def run_crowds(
    stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]
) -> tuple[list[CrowdMemory], dict[str, str]]:
    """The memory of each peer with each number of customers, and by name why one has none."""
    footprints: list[CrowdMemory] = []
    failures: dict[str, str] = {}
    for customers in stage.options.customers:
        crowd = Crowd(customers)
        for peer in list_crowd_peers(peers):
            say(f"memory of {customers} customers: {peer.name}")
            try:
                with stage.serving(peer, crowd=crowd) as running:
                    _send_first_requests(stage, running, Crowd(customers, is_first=True))
                    serving, control = of_processes(running.workers()), of_processes(running.control)
                    footprints.append(CrowdMemory(peer.name, customers, serving, control))
            except (OSError, RuntimeError) as error:
                failures[peer.name] = f"memory of {customers} customers: {error}"
    return footprints, failures


def _send_first_requests(stage: Stage, running: Running, crowd: Crowd) -> None:
    scenario = Scenario(crowd.name, "first requests", crowd=crowd)
    options = stage.options
    requests = 0
    for warms_up in (True, False):
        load = wrk.run(
            scenario,
            running.port,
            seconds=options.seconds,
            connections=options.connections,
            core=options.load_core,
            folder=stage.folder,
            warms_up=warms_up,
        )
        requests += load.requests
        if load.failed or load.refused > load.requests * _REFUSED_AT_MOST:
            raise RuntimeError(f"{load.requests} answers, {load.refused} of them refusals")
    if requests < crowd.customers:
        raise RuntimeError(f"{requests} answers for {crowd.customers} customers")


def _of_peer(name: str, running: Running, number_idle: int) -> Memory:
    idle, control = of_processes(running.workers()), of_processes(running.control)
    connections: list[socket.socket] = []
    try:
        for number in range(number_idle):
            connections.append(_connected(running.port, get_address(number)))
        full = of_processes(running.workers())
        require_open(connections)
    finally:
        for connection in connections:
            connection.close()
    return Memory(name, idle, control, (full.private - idle.private) / number_idle)


def require_open(connections: Iterable[socket.socket]) -> None:
    """Raise RuntimeError if the peer has closed any of these: on a slow machine, the first ones are idle for long."""
    waiting = select.poll()
    for connection in connections:
        waiting.register(connection, select.POLLRDHUP)
    if closed := waiting.poll(0):
        raise RuntimeError(f"{len(closed)} idle connections were closed before the measurement")


def get_address(number: int) -> str:
    """Return the address of an idle connection."""
    return f"127.0.0.{number // _PER_ADDRESS + 1}"


def _connected(port: int, source: str) -> socket.socket:
    """A connection from the address `source` that has had its first answer."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
    sock.sendall(SCENARIOS["small"].text().encode())
    answer = b""
    while not answer.endswith(SMALL_ANSWER):
        piece = sock.recv(65536)
        if not piece:
            sock.close()
            raise RuntimeError(f"closed a connection: {answer[:200]!r}")
        answer += piece
    return sock


def allow_files(count: int) -> None:
    """Raise this process's bound on open files to `count`, as far as its hard bound lets it; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(count, hard), hard))
