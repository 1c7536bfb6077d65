"""Load tests against edges started by others, and by hand with Locust's web UI: the data available from outside."""

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

from loadtest.testbed import customers
from loadtest.testbed.edge import Edge
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
thresholds: {p95: 8s}  # A generator's lag may be an eighth of it, on a machine with other work too.
"""
ROWS = {f"{region} free GET /v1/x" for region in ("eu-west", "us-east")}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Upstream]:
    with closing(Upstream(tmp_path, 0.02)) as upstream:
        until(upstream.ready, "the service answers")
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
    assert (ran.code, ran.lines[-1]) == (0, "verdict: pass (not judged: conserved, moved_p95, limit_error, false_429)")
    assert ran.figures["conservation"] is None
    assert ran.figures["counts"]["started"] == ran.figures["counts"]["due"]
    again = run(tmp_path / "again", calm, "--edges", edges(service), "--against", str(tmp_path / "out/figures.json"))
    assert again.code == 0
    assert {one["tier"] for one in again.figures["compared"]} == {"free"}
    other = run(tmp_path / "other", WORKLOADS / "crosscheck.yaml", "--against", str(tmp_path / "out/figures.json"))
    assert other.code == 2


LIMITED = """\
regions: {eu-west: 100%}
shape: [{warm_up: 500ms}, {steady: 40/s, for: 4s}]
tiers: {basic: {share: 100%, customers: 2, limit: 60/min}}
thresholds: {p95: 8s}
"""


@pytest.fixture
def tight(service: Upstream, tmp_path: Path) -> Iterator[Edge]:
    """An edge with a limit of 40, which LIMITED calls 60."""
    known = customers.people(**{"basic-0": "basic", "basic-1": "basic"})
    known["tiers"] = {**known["tiers"], "basic": {"limits": [{"rate": "40/min"}]}}
    with closing(Edge(tmp_path / "edge", service.port, **known)) as edge:
        yield edge.start()


def test_a_limit_of_40_is_not_passed_for_60(tight: Edge, tmp_path: Path) -> None:
    file = tmp_path / "limited.yaml"
    file.write_text(LIMITED)
    keys = tmp_path / "keys.json"
    given = {f"basic-{number}": customers.key_of(f"basic-{number}") for number in range(2)}
    keys.write_bytes(orjson.dumps(given))
    there = ["--edges", f"eu-west=http://{HOST}:{tight.port}", "--keys", str(keys)]
    ran = run(tmp_path / "out", file, *there, "--unused")
    assert ran.code == 1
    assert "fail: limit basic eu-west: the edge says 40 in 60 s, the workload 60 in 60 s" in ran.lines
    assert any(line.startswith("fail: false_429 basic") for line in ran.lines), "which --unused lets be judged"
    # Now they are used: of refusals in the first window nothing can be said, but the edge has promised.
    ran = run(tmp_path / "again", file, *there)
    assert ran.code == 1
    assert any(line.startswith("not judged: false_429: refusals in the first window") for line in ran.lines)
    keys.write_bytes(orjson.dumps(given | {"basic-0": "no such key"}))
    assert run(tmp_path / "unknown", file, *there).code == 2


OWN = (
    CALM
    + """\
requests:
  - {share: 60%, path: "/v1/orders/{1..9}?expand=items", name: an order}
  - {share: 20%, method: POST, path: /v1/orders, body: '{"id": "{uuid}"}', expect: [201]}
  - {share: 20%, log: LOG}
"""
)


def test_custom_requests_are_sent_and_reported_separately(service: Upstream, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text('1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /search?q=a HTTP/1.1" 200 5 "-" "-"\n')
    file = tmp_path / "own.yaml"
    file.write_text(OWN.replace("LOG", str(log)))
    ran = run(tmp_path / "out", file, "--edges", edges(service), "--direct", edges(service))
    assert ran.code == 1, "the service answers 200 where 201 is expected"
    assert any("error_rate" in line and "200 free" in line for line in ran.lines)
    rows = {row["name"]: row for row in ran.figures["requests"]}
    assert set(rows) == {"an order", "POST /v1/orders", "GET /search"}
    assert rows["an order"]["requests"] > rows["POST /v1/orders"]["requests"] > 5
    assert all(set(row["statuses"]) == {"200"} for row in rows.values())
    assert sum(row["requests"] for row in rows.values()) == ran.figures["counts"]["started"]


LOCUSTFILE = """\
from loadtest.locustfile import Arrivals, UntilFinished
from loadtest.users import CLASSES, Keyed


class Buyer(Keyed):
    abstract = True

    def once(self):
        headers = {"X-API-Key": self.key()}
        self.client.get("/v1/basket", headers=headers, name="basket")
        self.client.post("/v1/orders", json={"of": self.customer}, headers=headers, name="order")


CLASSES["free"] = Buyer
"""


def test_a_locustfile_of_ones_own_is_played_when_due_and_judged(service: Upstream, calm: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(LOCUSTFILE)
    ran = run(tmp_path / "out", calm, "--edges", edges(service), "--locustfile", str(file))
    assert (ran.code, ran.lines[-1]) == (0, "verdict: pass (not judged: conserved, moved_p95, limit_error, false_429)")
    assert sum(service.counts().values()) == 2 * sum(ran.figures["series"]["started"]), "two requests a turn"
    assert ran.figures["p95_ms"] > 40, "a turn ends with its last answer"


def test_rate_beyond_the_generator_makes_the_run_invalid(service: Upstream, calm: Path, tmp_path: Path) -> None:
    """Its answers wait for it, so it has no place for more; it must not be taken for a server that does not answer."""
    calm.write_text(CALM.replace("8s", "800ms"))
    ran = run(tmp_path / "out", calm, "--edges", edges(service), "--rate", "12000", "--seconds", "0.3")
    assert (ran.code, ran.lines[-1]) == (3, "verdict: invalid")
    assert any(line.startswith("generator: ") for line in ran.lines)


def post(port: int, path: str, **fields: Any) -> Any:
    connection = HTTPConnection(HOST, port, timeout=10)
    connection.request("POST", path, urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"})
    body = orjson.loads(connection.getresponse().read())
    connection.close()
    return body


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
