"""`edgeproxy probe` for health checks every second: its answer equals the full command's, without its imports."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.base.admin_socket import NAME
from edgeproxy.cli.health_check import check_quickly

HEAVY = {"typer", "pydantic", "pydantic_core", "yaml", "asyncio", "ssl", "urllib.request", "edgeproxy.config"}
ROUTES = "upstreams: {a: {endpoints: ['http://a']}}\nroutes: [{path: /, upstream: a}]\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = self.server.statuses.get(self.path, 404)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def address_string(self) -> str:
        return "a client"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: Any, statuses: dict[str, int]) -> Iterator[Any]:
    server.statuses = statuses
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory whose path is too long for a socket's."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    return deep


@pytest.fixture
def edge(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The admin listener of an edge in its socket, which is alive and ready unless a test says otherwise."""
    statuses = {"/readyz": 200, "/healthz": 200}
    monkeypatch.chdir(state)
    with serving(socketserver.UnixStreamServer(NAME, Handler), statuses):
        yield statuses


@pytest.mark.parametrize(
    ("text", "quickly"),
    [
        ("state: {state}\n" + ROUTES, True),
        ("state: '{state}'\n" + ROUTES, True),
        ("state: {state} # here\n" + ROUTES, False),
        ("state: ${{WHERE}}\n" + ROUTES, False),
        ("include: [other.yaml]\n" + ROUTES, False),
        ("state: {state}\nstate: elsewhere\n" + ROUTES, False),
        ("state: {state}\ndatabase: sqlite:///x.db\n", False),
        ("state: {state}/elsewhere\n" + ROUTES, False),
        ("{{state: {state}, " + "upstreams: {{}}}}", False),
    ],
)
def test_quick_probe_prints_the_output_of_the_command(
    text: str, quickly: bool, edge: dict[str, int], state: Path, tmp_path: Path
) -> None:
    config = tmp_path / "edge.yaml"
    config.write_text(text.replace("{{", "{").replace("}}", "}").replace("{state}", str(state)))
    for more, expected in ((), "ready"), (("--live",), "alive"):
        words = ["-c", str(config), *more]
        assert check_quickly(words) == (expected if quickly else None)
        if quickly:
            assert CliRunner().invoke(cli.app, ["probe", *words]).stdout == f"{expected}\n"
    edge["/readyz"] = 503
    assert check_quickly(["-c", str(config)]) is None, "why it is not ready says the command"


def test_health_check_finds_an_edge_by_state_address_or_default(
    edge: dict[str, int], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_quickly(["--state", str(state)]) == check_quickly(["--state", "."]) == "ready"
    assert check_quickly([]) is None
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "edge").symlink_to(state)
    monkeypatch.chdir(tmp_path)
    assert check_quickly([]) == "ready"
    with serving(HTTPServer(("127.0.0.1", 0), Handler), edge) as server:
        port = server.server_address[1]
        assert (
            check_quickly(["--admin", f"127.0.0.1:{port}"]) == check_quickly(["--admin", f"0.0.0.0:{port}"]) == "ready"
        )
    assert check_quickly(["--admin", f"127.0.0.1:{port}"]) is None


@pytest.mark.parametrize(
    "words", [["--tls"], ["--help"], ["-c"], ["--state", ".", "--admin", "a:1"], ["--admin", "[::1]:1"], ["x"]]
)
def test_other_arguments_are_the_commands(words: list[str], edge: dict[str, int]) -> None:
    assert check_quickly(words) is None


def test_a_probe_imports_no_library_of_the_command_line(edge: dict[str, int], state: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "edgeproxy", "probe", "--state", str(state)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "ready\n"
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "edgeproxy.cli.health_check" in imported
    assert not imported & HEAVY
