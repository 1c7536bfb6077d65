"""Whole edges as processes, an API behind them, and whatever they leave behind brought to an end."""

import ctypes
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.waiting import until

ROOT = Path(__file__).parents[2]

KEY = "key-of-acme"

START = """
import os, sys
from pathlib import Path
from edgeproxy.config.load import load
from edgeproxy.supervisor.main import run
path = Path(sys.argv[1])
sys.exit(run(load(path, os.environ), path))
"""

CONFIG = """
region: here
listen: 127.0.0.1:{port}
admin: 127.0.0.1:{admin}
workers: {workers}
state: {state}
drain: 2s
overload: {{lag: 5s}}
tables: {{customers: 1000, addresses: 1000}}
tiers: {{basic: {{limits: [{{rate: 100000/min}}, {{rate: 1000000/h}}]}}, free: {{}}}}
customers: {{acme: {{tier: basic}}, idle: {{tier: free, limits: [{{name: own, rate: 7/10s}}]}}, none: {{tier: free}}}}
keys: [{{sha256: "{sha256}", customer: acme}}]
upstreams: {{api: {{endpoints: [http://127.0.0.1:{upstream}]}}}}
routes: [{{name: v1, path: /v1/*, upstream: api}}]
"""

SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2): workers whose supervisor died become children of this process."""


class Api(ThreadingHTTPServer):
    """The service behind the edge: it answers 200 and counts."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answered = 0
        self.counting = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A worker that was killed is no news here; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Api)
        with self.server.counting:
            self.server.answered += 1
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def api() -> Iterator[Api]:
    """The service, served until the context ends."""
    with Api() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            served.shutdown()
            thread.join()


def held_port() -> socket.socket:
    """A socket that keeps a port for the edges of this test: they may share it, and nobody else is given it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Edge:
    """One supervisor process, with its workers."""

    def __init__(self, config: Path, port: int, admin: int, log: Path) -> None:
        self.port = port
        self.admin = admin
        self.log = log
        with log.open("wb") as written:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(config)], cwd=ROOT, stderr=written, stdin=subprocess.DEVNULL
            )

    def get(self, path: str) -> tuple[int, bytes]:
        """What the admin listener answers: status and body; (0, b"") where it does not."""
        return self.ask("GET", path, self.admin)

    def ask(self, method: str, path: str, port: int, **headers: str) -> tuple[int, bytes]:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def request(self) -> int:
        """The status of a request by acme to the API; 0 where there was no answer."""
        return self.ask("GET", "/v1/thing", self.port, Authorization=f"Bearer {KEY}")[0]

    def json(self, path: str) -> Any:
        """The body of an admin answer, as JSON."""
        return json.loads(self.get(path)[1])

    def wait_ready(self) -> None:
        """Wait until the edge says that it is ready; fails at once where it has ended instead."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the edge ended: {self.said()}"
            return self.get("/readyz")[0] == 200

        until(ready, "the edge is ready")

    def workers(self) -> list[int]:
        """The pids of its workers."""
        return [worker["pid"] for worker in self.json("/status")["workers"]]

    def counted(self) -> int:
        """Requests that were counted for acme, by /usage."""
        return sum(total for customer, _, _, total in self.json("/usage")["rows"] if customer == "acme")

    def said(self) -> str:
        """What it and its workers wrote to standard error."""
        return self.log.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The structured log lines of this event."""
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def end(self) -> int:
        """Tell it to stop, as an operator would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)

    def kill(self) -> None:
        """kill -9 of the supervisor alone."""
        self.process.kill()
        self.process.wait(timeout=20)


class Host:
    """What a test starts edges on: ports, a state directory, the API. All edges share them unless told otherwise."""

    def __init__(self, directory: Path, served: Api, stack: ExitStack) -> None:
        self.directory = directory
        self.api = served
        self.state = directory / "state"
        self._stack = stack
        self.port, self.admin = self.free_port(), self.free_port()
        self.edges: list[Edge] = []
        self._others = children()

    def free_port(self) -> int:
        """A port that is this host's own until its end."""
        port: int = self._stack.enter_context(held_port()).getsockname()[1]
        return port

    def start(self, *, workers: int = 2, state: Path | None = None, admin: int | None = None) -> Edge:
        """Start an edge; it is not ready yet."""
        name = f"edge{len(self.edges)}"
        config = self.directory / f"{name}.yaml"
        admin = self.admin if admin is None else admin
        config.write_text(
            CONFIG.format(
                port=self.port,
                admin=admin,
                workers=workers,
                state=self.state if state is None else state,
                sha256=hashlib.sha256(KEY.encode()).hexdigest(),
                upstream=self.api.server_address[1],
            )
        )
        self.edges.append(Edge(config, self.port, admin, self.directory / f"{name}.log"))
        return self.edges[-1]

    def orphans(self) -> set[int]:
        """The pids of workers whose supervisor is dead, and which still run."""
        others = self._others | {edge.process.pid for edge in self.edges}
        return {pid for pid in children() - others if not reaped(pid)}

    def clear(self) -> None:
        """End what still runs. Only children of this process are signalled, so no pid can be another's."""
        for edge in self.edges:
            edge.kill()
            print(f"---- {edge.log.name}", edge.said(), sep="\n")  # pytest shows it where the test failed
        for pid in self.orphans():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def host(directory: Path) -> Iterator[Host]:
    """A host for edges; nothing of theirs runs when the context has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(SUBREAPER, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
    with ExitStack() as stack:
        stack.callback(libc.prctl, SUBREAPER, 0, 0, 0, 0)
        made = Host(directory, stack.enter_context(api()), stack)
        stack.callback(made.clear)
        yield made


def children() -> set[int]:
    """The pids of this process's children, those that ended and were not waited for among them."""
    pids = (int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat"))
    return {pid for pid in pids if parent_of(pid) == os.getpid()}


def parent_of(pid: int) -> int | None:
    """The pid of a process's parent; None where it has ended and was waited for."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def reaped(child: int) -> bool:
    """Whether this child has ended; it is waited for if so."""
    return os.waitpid(child, os.WNOHANG) != (0, 0)
