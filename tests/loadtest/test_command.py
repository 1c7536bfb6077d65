"""scripts/loadtest as a whole: real edges, a real generator, and a named finding for each fault."""

import io
import re
import signal
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from loadtest.__main__ import main
from loadtest.record import read_hdr
from loadtest.testbed.process import ROOT
from loadtest.testbed.redis import SERVER

LENIENT = Path(__file__).with_name("lenient.yaml")
needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


class Ran(NamedTuple):
    """The output of the command and the files that it wrote."""

    code: int
    lines: list[str]
    out: Path

    @property
    def figures(self) -> dict[str, Any]:
        body: dict[str, Any] = orjson.loads((self.out / "figures.json").read_bytes())
        return body


def run(out: Path, workload: Path, *arguments: str) -> Ran:
    """Run the command in this process, so that its child processes are copies of the fork server."""
    said, ends = io.StringIO(), signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(said):
            code = main(["--workload", str(workload), "--out", str(out), *arguments])
    finally:
        signal.signal(signal.SIGTERM, ends)
        print(said.getvalue())
    return Ran(code, said.getvalue().splitlines(), out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "0"], "is not a number above zero"),
        (["--smoke", "--soak"], "not allowed with"),
        (["--edges", "eu-west"], "is not REGION=URL"),
        (["--keys", "keys.json"], "are for --edges"),
        (["--unused"], "are for --edges"),
        (["--direct", "http://127.0.0.1:1"], "is not REGION=URL"),
        (["--locustfile", "nowhere.py"], "is not there"),
        (["--inject", "lost-worker"], "needs --processes 2"),
        (["--workload", "nowhere.yaml"], "cannot be read"),
        (["--against", "nowhere.json"], "No such file"),
        (["--edges", "eu-west=http://127.0.0.1:1"], "has no URL of ap-southeast, us-east"),
        (["--against", str(ROOT / "tests/loadtest/lenient.yaml")], ""),
    ],
)
def test_invalid_arguments_start_nothing(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert said in capsys.readouterr().err


@needs_redis
@pytest.mark.alone
@pytest.mark.timeout(240)
def test_a_run_with_a_region_lost_and_the_hub_cut_passes(tmp_path: Path) -> None:
    workload = tmp_path / "eventful.yaml"
    events = "events: [{at: 25%, lose: us-east, for: 25%}, {at: 60%, cut: hub, for: 20%}]\n"
    workload.write_text(LENIENT.read_text() + events)
    for attempt in ("once", "again"):  # A machine that stands still itself spoils a run, and the verdict says so.
        ran = run(tmp_path / attempt, workload, "--processes", "2")
        if ran.code != 3:
            break
    assert ran.lines[-1] == "verdict: pass"
    assert any(line.startswith("machine: ") for line in ran.lines)
    assert re.fullmatch(r"p95: \d+ ms", ran.lines[-2])
    assert ran.code == 0
    assert not any("invalid" in line for line in ran.lines)
    assert sum(bool(re.match(r" *\d+ s · \d+/s · p95 .* ms · 429 \d+ .*· lag ", line)) for line in ran.lines) >= 8

    figures = ran.figures
    counts = figures["counts"]
    assert counts["started"] == counts["due"] > 500, "two workers start what the schedule has"
    happened = {"lost us-east", "end of lost us-east", "cut hub", "end of cut hub"}
    assert {event["name"] for event in figures["events"]} == happened
    moved = [row for row in figures["latency"] if row["place"] == "moved"]
    assert {row["region"] for row in moved} == {"us-east"}
    assert all(row["response_ms"]["p50"] > 80 for row in moved if row["tier"] == "basic"), "the distance"
    assert figures["conservation"]["breaches"] == []
    assert figures["conservation"]["answered"] > 300
    assert counts["refused"] > 100, "60 a minute shows"
    assert all(sample[-1]["at"] > 8 for sample in figures["samples"].values()), "every edge is there at the end"
    assert all(0 < max(one["workers_cores"] for one in sample) < 2.5 for sample in figures["samples"].values())
    assert set(figures["generator"]) == {"0", "1"}

    written = read_hdr(ran.out / "histograms/eu-west-basic-response-home.hdr")
    (row,) = (one for one in figures["latency"] if one["region"] == "eu-west" and one["tier"] == "basic")
    assert written.count == row["requests"]
    page = (ran.out / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=|@import|url\(", page), "the page loads nothing"


@needs_redis
@pytest.mark.soak
def test_clients_of_an_unreachable_region_move_to_another(tmp_path: Path) -> None:
    workload = tmp_path / "hole.yaml"
    workload.write_text(LENIENT.read_text() + "events: [{at: 25%, lose: us-east, how: hole, for: 60%}]\n")
    ran = run(tmp_path / "out", workload, "--seconds", "12")
    assert ran.lines[-1] == "verdict: pass"
    counts = ran.figures["counts"]
    assert sum(counts[name] for name in counts if name.endswith("in grace")) > 5
    assert "lost" not in counts, "no request uses an earlier connection"
    assert sum(row["requests"] for row in ran.figures["latency"] if row["place"] == "moved") > 50


FAULTS = [
    pytest.param("lost-worker", 3, r"generator: worker 1 was lost, \d+ s after the beginning"),
    *(
        pytest.param(*row, marks=pytest.mark.soak)
        for row in (
            ("nobody", 1, r"fail: p95 eu-west: nothing was answered"),
            (
                "slow-upstream",
                1,
                r"fail: p95 eu-west 1\d\d\d ms > 800 ms, \d+ s to \d+ s; direct 1\d+ ms, so the .*",
            ),
            ("hanging-upstream", 1, r"fail: lost \d+ > 0: sent and never answered in .*"),
            ("leaking-limit", 1, r"fail: limit_error basic-\d \d+ of 60, 90 may, .*; 2 basic customers above .*"),
            ("false-429", 1, r"fail: false_429 basic .* > 5 % were refused although .*: \d+ in ap-southeast.*"),
            ("dropped-batches", 1, r"fail: conserved: \d+ customers differ, .* answered and not in the ledger; .*"),
            ("starved-generator", 3, r"generator: late, p95 \d+ ms, worker 0, \d+ s to \d+ s"),
        )
    ),
]


@needs_redis
@pytest.mark.parametrize(("fault", "code", "told"), FAULTS)
def test_injected_fault_has_its_named_finding(fault: str, code: int, told: str, tmp_path: Path) -> None:
    more = {"lost-worker": ["--processes", "2", "--seconds", "3"], "nobody": ["--seconds", "3"]}.get(fault, [])
    ran = run(tmp_path / "out", LENIENT, "--inject", fault, *more)
    assert any(re.fullmatch(told, line) for line in ran.lines)
    assert ran.code == code
    assert ran.lines[-1] == f"verdict: {'invalid' if code == 3 else 'fail'}"
    assert ran.figures["injected"] == fault


@needs_redis
@pytest.mark.soak
def test_stalls_affect_p95_of_the_open_model(tmp_path: Path) -> None:
    """An upstream of 20 ms that stands still for 300 of 3300 ms: the theory of an open model says 175 ms."""
    workload = tmp_path / "stalls.yaml"
    workload.write_text(LENIENT.read_text().replace("800ms", "120ms").replace("for: 8s", "for: 20s"))
    for _ in range(3):  # A machine that stands still itself spoils a run, and the verdict says so.
        ran = run(tmp_path / "out", workload, "--inject", "stalls", "--rate", "200")
        if ran.code != 3:
            break
    assert ran.code == 1
    assert 120 < ran.figures["p95_ms"] < 280
