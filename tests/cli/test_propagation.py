"""`keys add --wait`: it returns once all edges that a collector knows have the key."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli import propagation

SECRET = "edge_v1_secret"


class Server(HTTPServer):
    """A collector that creates a key, and then says this of the edges; the last answer is repeated."""

    answers: list[JsonObject]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if not self.path.startswith("/v1/directory/followers"):
            self.answer({"customers": []})
            return
        answers = self.server.answers
        self.answer(answers.pop(0) if len(answers) > 1 else answers[0])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"id": "k1", "secret": SECRET})

    def answer(self, document: JsonObject) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
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


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagation, "PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("EDGEPROXY_TOKEN", "token")


def add(server: Server, *answers: JsonObject) -> Result:
    server.answers = list(answers)
    return CliRunner().invoke(
        cli.app, ["keys", "add", "acme", "--wait", "--collector", f"http://127.0.0.1:{server.server_port}"]
    )


def followers(version: int | None, *versions: int | None, pending: bool = False, hub: bool = False) -> JsonObject:
    edges: list[JsonObject] = [{"name": f"edge.{at}", "version": version} for at, version in enumerate(versions)]
    return {"version": version, "pending": pending, "hub": hub, "followers": [*edges]}


def test_the_wait_ends_when_the_last_edge_has_the_version_with_the_key(server: Server) -> None:
    """A version that is made meanwhile is another's, and not waited for."""
    result = add(
        server,
        followers(4, 4, 4, pending=True),
        followers(5, 4, 4),
        followers(6, 5, None, pending=True),
        followers(7, 5, 5),
        followers(8, 0, 0),
    )
    assert (result.exit_code, result.stdout) == (0, f"{SECRET}\n"), result.output
    assert len(server.answers) == 1


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (followers(5), "no edge fetches the directory from this collector now"),
        (followers(5, 5, hub=True), "edges that follow the hub are not asked"),
    ],
)
def test_propagation_names_unreachable_edges(server: Server, answer: JsonObject, note: str) -> None:
    result = add(server, answer)
    assert (result.exit_code, result.stdout, note in result.stderr) == (0, f"{SECRET}\n", True)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (followers(5, 5, 4, None), "2 edges do not have it: edge.1, edge.2"),
        (followers(5, pending=True), "no version of the directory has it"),
    ],
)
def test_the_secret_is_printed_also_where_an_edge_stays_behind(
    server: Server, answer: JsonObject, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagation, "WAIT_SECONDS", 0.0)
    result = add(server, answer)
    assert (result.exit_code, result.stdout, why in result.stderr) == (1, f"{SECRET}\n", True)
