"""Against edges that somebody else started, and by hand with Locust's web UI: what can be known outside."""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until
from loadtest.topology import Upstream
from loadtest.workload import WORKLOADS
from tests.loadtest.test_command import run

CALM = """\
regions: {eu-west: 50%, us-east: 50%}
shape: [{warm_up: 500ms}, {steady: 60/s, for: 3s}]
tiers: {free: {share: 100%, customers: 3}}
thresholds: {p95: 800ms}
"""
ROWS = {f"{region} free GET /v1/x" for region in ("eu-west", "us-east")}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Upstream]:
    with closing(Upstream(tmp_path, 0.02)) as upstream:
        until(upstream.ready, "it answers")
        yield upstream


@pytest.fixture
def calm(tmp_path: Path) -> Path:
    file = tmp_path / "calm.yaml"
    file.write_text(CALM)
    return file


def edges(service: Upstream) -> str:
    return ",".join(f"{region}=http://{HOST}:{service.port}" for region in ("eu-west", "us-east"))


def test_edges_that_are_there_are_loaded_and_judged(service: Upstream, calm: Path, tmp_path: Path) -> None:
    ran = run(tmp_path / "out", calm, "--edges", edges(service))
    assert (ran.code, ran.lines[-1]) == (0, "verdict: pass")
    assert ran.figures["conservation"] is None
    assert ran.figures["counts"]["started"] == ran.figures["counts"]["due"]
    again = run(tmp_path / "again", calm, "--edges", edges(service), "--against", str(tmp_path / "out/figures.json"))
    assert again.code == 0
    assert {one["tier"] for one in again.figures["compared"]} == {"free"}
    other = run(tmp_path / "other", WORKLOADS / "crosscheck.yaml", "--against", str(tmp_path / "out/figures.json"))
    assert other.code == 2


def test_a_rate_that_the_generator_cannot_send_is_invalid_whatever_its_times(
    service: Upstream, calm: Path, tmp_path: Path
) -> None:
    """Its answers wait for it, so it has no place for more; it must not be taken for a server that does not answer."""
    ran = run(tmp_path / "out", calm, "--edges", edges(service), "--rate", "12000", "--seconds", "0.3")
    assert (ran.code, ran.lines[-1]) == (3, "verdict: invalid")
    assert any(line.startswith("generator: ") for line in ran.lines)


def post(port: int, path: str, **fields: Any) -> Any:
    connection = HTTPConnection(HOST, port, timeout=10)
    connection.request("POST", path, urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"})
    told = orjson.loads(connection.getresponse().read())
    connection.close()
    return told


def test_locusts_web_ui_starts_runs_with_another_rate(service: Upstream, calm: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--web-host", HOST, "--web-port", port]
    ui = Process([*map(str, command), "--workload", str(calm), "--edges", edges(service)], tmp_path / "locust.log")

    def requests() -> dict[str, int]:
        stats = ask(port, "/stats/requests").json()["stats"]
        return {row["name"]: row["num_requests"] for row in stats if row["name"] != "Aggregated"}

    def answers() -> bool:
        try:
            return ask(port, "/stats/requests").status == 200
        except OSError:
            return False

    try:
        until(answers, "the web UI is there", seconds=40)
        for number, rate in enumerate((60, 20), 1):
            told = post(port, "/swarm", user_count=1, spawn_rate=1, rate=rate, seconds=2)
            assert told["success"], told
            until(lambda number=number: ui.output.count("\nverdict: ") == number, "the run ends", seconds=40)
            asked = requests()
            assert set(asked) == ROWS
            assert 0.5 * rate * 2.5 < sum(asked.values()) < 2 * rate * 2.5
    finally:
        ui.stop()
