"""The access log of a whole edge: complete, one file for all workers, and never blocking a request."""

import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.http_client import ask
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

KEY = key_of(UNLIMITED)


def lines(*files: Path) -> list[dict[str, Any]]:
    """All lines of these files, each a whole one."""
    texts = [file.read_bytes() for file in files if file.exists()]
    assert all(not text or text.endswith(b"\n") for text in texts)
    return [orjson.loads(line) for text in texts for line in text.splitlines()]


def test_every_request_has_one_line_through_rotations_and_workers(start_edge: StartEdge, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    edge = start_edge(access_log=str(file))
    asked: list[str] = []
    rotated: list[Path] = []

    enough = threading.Event()

    def asks() -> None:
        n = 0
        while not enough.is_set():
            n += 1
            answer = edge.ask(f"/{n}?token=hush", key=KEY if n % 3 else None)
            asked.append(answer["x-request-id"])

    clients = [threading.Thread(target=asks) for _ in range(4)]
    for client in clients:
        client.start()
    for number in range(3):
        until(lambda: file.exists() and file.stat().st_size > 2000, "there are lines")
        rotated.append(file.rename(tmp_path / f"access.log.{number}"))
    until(file.exists, "there is a file again")
    enough.set()
    for client in clients:
        client.join()
    until(lambda: len(lines(file, *rotated)) >= len(asked), "every request has a line")
    edge.end()
    found = lines(file, *rotated)
    assert sorted(line["request_id"] for line in found) == sorted(asked)
    assert {line["status"] for line in found} == {200, 401}
    assert {line["region"] for line in found} == {"eu-test"}
    assert b"hush" not in b"".join(each.read_bytes() for each in (file, *rotated))


def test_drain_writes_all_answers_to_the_log(start_edge: StartEdge, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    edge = start_edge(access_log=str(file), drain="500ms")

    def waits() -> None:
        with pytest.raises(OSError):
            edge.ask("/slow?wait=20000", key=KEY)

    waiting = threading.Thread(target=waits)
    waiting.start()
    until(lambda: edge.metrics() and edge_connections(edge) >= 1, "the client waits")
    asked = [edge.ask(f"/{n}", key=KEY)["x-request-id"] for n in range(20)]
    edge.end()
    waiting.join()
    found = lines(file)
    assert sorted(line["request_id"] for line in found if "status" in line) == sorted(asked)
    (cut,) = [line for line in found if "status" not in line]
    assert cut["path"] == "/slow"
    assert cut["error"].startswith("The edge ended the connection")


def edge_connections(edge: Edge) -> float:
    return total(edge.metrics(), "edge_connections", side="upstream")


def test_a_container_gets_its_lines_on_standard_output(start_edge: StartEdge) -> None:
    edge = start_edge(access_log="/dev/stdout")
    answer = edge.ask("/x", key=KEY)
    line = until(lambda: [line for line in edge.output.splitlines() if '"request_id"' in line], "the line is there")
    assert orjson.loads(line[0])["request_id"] == answer["x-request-id"]


@pytest.mark.parametrize(
    ("where", "why"), [("no/access.log", "the directory {} does not exist"), ("", "Is a directory")]
)
def test_an_edge_that_could_not_log_does_not_start(tmp_path: Path, upstream: Upstream, where: str, why: str) -> None:
    file = tmp_path / where
    edge = Edge(tmp_path / "edge", upstream.port)
    supervisor = edge.begin(access_log=str(file))
    assert supervisor.wait(20) == 2
    assert edge.output == f"edgeproxy: the access log {file} cannot be written: {why.format(file.parent)}\n"
    edge.close()


def test_edge_creates_a_log_in_the_state_directory(start_edge: StartEdge, tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    edge = start_edge(state=str(state), access_log=str(state / "access.log"))
    ask(edge.port)
    (line,) = until(lambda: lines(state / "access.log"), "the line is there")
    assert (line["status"], line["client"]) == (401, "127.0.0.1")
