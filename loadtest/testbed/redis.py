"""A Redis for one test, on its own port, which the test can kill, stop and start again."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import key_slot

from loadtest.testbed.waiting import until

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")


def free_port() -> int:
    """Return a port that no server listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Redis:
    """A server without data on disk."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        assert SERVER is not None
        self.port = free_port() if port is None else port
        self._command = [SERVER, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_alive(self) -> bool:
        """Return whether it was started, and not killed since."""
        return self._process is not None

    def setting(self, name: str) -> str:
        """Return the value of an option of its command."""
        return self._command[self._command.index(f"--{name}") + 1]

    def start(self) -> None:
        """Start the server, and wait until it serves."""
        listening = [] if "--tls-port" in self._command else ["--port", str(self.port)]
        self._process = subprocess.Popen([*self._command, *listening], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert any("eady to accept connections" in line for line in self._process.stdout), "the server did not start"

    def kill(self) -> None:
        """Send SIGKILL. Does nothing if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def stop(self) -> None:
        """Stop the process, so that calls hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Sentinels:
    """A primary, a replica, and three Sentinels that monitor them as the service `hub`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """`arguments` apply to both servers."""
        homes = [folder / name for name in ("primary", "replica", "sentinel-0", "sentinel-1", "sentinel-2")]
        for home in homes:
            home.mkdir()
        self.primary = Redis(homes[0], *arguments)
        following = ("--replicaof", f"127.0.0.1 {self.primary.port}", "--repl-diskless-sync-delay", "0")
        self.replica = Redis(homes[1], *following, *arguments)
        self.sentinels = []
        for home in homes[2:]:
            file = home / "sentinel.conf"
            file.write_text(
                f"sentinel monitor hub 127.0.0.1 {self.primary.port} 2\nsentinel down-after-milliseconds hub 500\n"
                "sentinel failover-timeout hub 3000\n"
            )
            self.sentinels.append(_Sentinel(home, str(file)))
        for sentinel in self.sentinels:
            until(partial(self._knows_all, sentinel), "the Sentinels know each other", seconds=60)

    def _knows_all(self, sentinel: Redis) -> bool:
        with redis.Redis(port=sentinel.port, decode_responses=True) as client:
            state: Any = client.execute_command("SENTINEL", "MASTER", "hub")
            told = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
            return (int(told["num-other-sentinels"]), int(told["num-slaves"])) == (2, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self.sentinels, self.primary, self.replica):
            one.kill()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.where}/hub"

    @property
    def where(self) -> str:
        """The Sentinels in the form of the URL."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def swap(self) -> None:
        """Make the replica take over while the primary is alive; returns at once."""
        with redis.Redis(port=self.sentinels[0].port) as client:
            client.execute_command("SENTINEL", "FAILOVER", "hub")


class _Sentinel(Redis):
    """A Sentinel. It writes into its file."""

    def __init__(self, folder: Path, file: str) -> None:
        assert SERVER is not None
        self.port = free_port()
        self._command = [SERVER, file, "--sentinel", "--bind", "127.0.0.1", "--dir", str(folder)]
        self._process = None
        self.start()

    def start(self) -> None:
        """Start the Sentinel, and wait until it serves."""
        self._process = subprocess.Popen([*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert any("monitor master" in line for line in self._process.stdout), "the Sentinel did not start"


SLOTS = 16384


class Cluster:
    """A Redis Cluster of three primaries, each with `replicas` replicas. Only the nodes' roles are on disk."""

    def __init__(self, folder: Path, *arguments: str, replicas: int = 0) -> None:
        self.nodes: list[Redis] = []
        self._operator: dict[int, redis.Connection] = {}
        try:
            self._start(folder, arguments, replicas)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _start(self, folder: Path, arguments: Sequence[str], replicas: int) -> None:
        for number in range(3 * (1 + replicas)):
            home = folder / f"node-{number}"
            home.mkdir()
            settings = {
                "cluster-enabled": "yes",
                "cluster-port": str(free_port()),
                "cluster-node-timeout": "1000",
                "cluster-require-full-coverage": "no",
                "repl-diskless-sync-delay": "0",
                "repl-ping-replica-period": "1",
            }
            given = [part for name, value in settings.items() for part in (f"--{name}", value)]
            self.nodes.append(Redis(home, *given, *arguments))
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            self.tell(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                self.tell(node, "CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
        bus = self.nodes[0].setting("cluster-port")
        for node in self.nodes[1:]:
            self.tell(node, "CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        until(lambda: all(map(self._is_known, self.nodes)), "all have met")
        for number, node in enumerate(self.nodes[3:]):
            self.tell(node, "CLUSTER", "REPLICATE", self.name(self.nodes[number % 3]))
        until(lambda: all(map(self._is_well, self.nodes)), "the cluster is up")

    def _is_well(self, node: Redis) -> bool:
        told = self.text(node, "INFO", "replication")
        linked = "role:master" in told or "master_link_status:up" in told
        return linked and len(self._primaries(node)) == 3 and "cluster_state:ok" in self.text(node, "CLUSTER", "INFO")

    def _primaries(self, node: Redis) -> dict[tuple[int, int], int]:
        """Return the port of the owner of each range of slots, as a node knows it."""
        return {(first, last): primary[1] for first, last, primary, *_ in self.tell(node, "CLUSTER", "SLOTS")}

    def _is_known(self, node: Redis) -> bool:
        lines = self.text(node, "CLUSTER", "NODES").splitlines()
        return len(lines) == len(self.nodes) and not any("handshake" in line for line in lines)

    def name(self, node: Redis) -> str:
        """Return its id in the cluster."""
        return self.text(node, "CLUSTER", "MYID")

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])

    def text(self, node: Redis, *command: Any) -> str:
        text: str = self.tell(node, *command).decode()
        return text

    def tell(self, node: Redis, *command: Any) -> Any:
        """Send a command to one node as an operator; return the raw answer."""
        if node.port not in self._operator:
            self._operator[node.port] = redis.Connection(port=node.port, protocol=2, socket_timeout=10)  # type: ignore[no-untyped-call]
        connection = self._operator[node.port]
        try:
            connection.send_command(*command)  # type: ignore[no-untyped-call]
            return connection.read_response()
        except redis.ConnectionError:
            # The node was killed since it was told something, and may be there again.
            connection.disconnect()  # type: ignore[no-untyped-call]
            connection.send_command(*command)  # type: ignore[no-untyped-call]
            return connection.read_response()

    def owner(self, key: bytes) -> Redis:
        """Return the current owner of a key, from the first living node."""
        slot, asked = key_slot(key), self._alive()
        port = next(port for (first, last), port in self._primaries(asked).items() if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def primaries(self) -> list[Redis]:
        """Return the living nodes that currently have slots."""
        ports = set(self._primaries(self._alive()).values())
        return [node for node in self.nodes if node.port in ports and node.is_alive]

    def _alive(self) -> Redis:
        return next(node for node in self.nodes if node.is_alive)

    def replica(self, primary: Redis) -> Redis:
        """Return a primary's first replica."""
        return self.nodes[3 + self.nodes.index(primary)]

    def kill(self) -> None:
        """Send SIGKILL to all nodes."""
        for connection in self._operator.values():
            connection.disconnect()  # type: ignore[no-untyped-call]
        for node in self.nodes:
            node.kill()
