"""`edgeproxy probe --wait`: until a server is ready, or its process has ended."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.cli import readiness


class Server(HTTPServer):
    """A server that is ready from a number of questions on."""

    questions = 0
    ready_after = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.questions += 1
        body = b'{"ready": false, "reason": "starting"}'
        self.send_response(200 if self.server.questions > self.server.ready_after else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ended() -> Iterator[int]:
    """Return the id of a zombie: an ended process whose parent has not waited for it."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def probe(*words: object) -> Result:
    return CliRunner().invoke(cli.app, ["probe", *map(str, words)])


def test_a_wait_ends_once_the_server_is_ready(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PAUSE_SECONDS", 0.001)
    server.ready_after = 3
    result = probe("--admin", f"127.0.0.1:{server.server_port}", "--wait", "30s", "--pid", os.getpid())
    assert (result.exit_code, result.stdout, server.questions) == (0, "ready\n", 4)


def test_a_wait_that_is_over_says_why(server: Server) -> None:
    server.ready_after = 1_000_000
    result = probe("--admin", f"127.0.0.1:{server.server_port}", "--wait", "1ms")
    assert (result.exit_code, result.stderr) == (1, "not ready after 1ms: starting\n")


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (b"one\n\x1b[31mthe address is in use\n\n", "the last line of {log}: ?[31mthe address is in use\n"),
        (b"", "process {pid} has ended, and {log} is empty\n"),
        (None, "process {pid} has ended, and {log} is empty\n"),
    ],
)
def test_readiness_reports_an_ended_process_with_its_last_log_line(
    server: Server, ended: int, tmp_path: Path, log: bytes | None, told: str
) -> None:
    """Also where another server answers at the address."""
    path = tmp_path / "log"
    if log is not None:
        path.write_bytes(log)
    result = probe("--admin", f"127.0.0.1:{server.server_port}", "--wait", "30s", "--pid", ended, "--log", path)
    assert result.exit_code == 1
    assert result.stderr.endswith(told.format(log=path, pid=ended))
    assert server.questions == 0


def test_an_answer_of_another_process_at_the_port_does_not_count(server: Server) -> None:
    """It has the port that the process should have, which may not have found out yet."""
    with subprocess.Popen(["sleep", "60"]) as process:
        result = probe("--admin", f"127.0.0.1:{server.server_port}", "--wait", "1ms", "--pid", process.pid)
        process.kill()
    assert result.exit_code == 1
    assert f"process {process.pid} does not listen at port {server.server_port}" in result.stderr
    assert server.questions == 0


def test_a_process_that_is_gone_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    result = probe("--admin", "127.0.0.1:1", "--wait", "30s", "--pid", process.pid)
    assert (result.exit_code, result.stderr) == (1, f"process {process.pid} has ended\n")


@pytest.mark.parametrize("words", [["--pid", "1"], ["--log", "x"], ["--wait", "soon"]])
def test_invalid_readiness_arguments_are_reported(words: list[str]) -> None:
    assert probe("--admin", "127.0.0.1:1", *words).exit_code == 2


def test_the_file_of_an_edge_asks_no_other_edge(server: Server, tmp_path: Path) -> None:
    """Something else may listen at the address of its file."""
    config = tmp_path / "edge.yaml"
    config.write_text(f"state: {tmp_path}\nadmin: 127.0.0.1:{server.server_port}\nupstreams: {{}}\n")
    result = probe("-c", config)
    assert (result.exit_code, server.questions) == (1, 0)
    assert result.stderr.startswith(f"nobody answers at unix:{tmp_path}/admin.sock")


def test_the_file_of_a_collector_asks_it(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "collector.yaml"
    rest = f"database: sqlite:///{tmp_path}/x.db\ntokens: [{{role: edge, sha256: {'0' * 64}}}]\n"
    config.write_text(f"listen: 127.0.0.1:{server.server_port}\n{rest}")
    result = probe("-c", config)
    assert (result.exit_code, result.stdout) == (0, "ready\n"), result.stderr
    config.write_text(f"listen: {{address: 0.0.0.0:{server.server_port}, behind_tls: true}}\n{rest}")
    assert probe("-c", config, "--live").stdout == "alive\n"
    config.write_text(f"listen: nowhere\n{rest}")
    assert probe("-c", config).exit_code == 2
