"""The neighbour bench: its schedule, its figures and verdict, its windows, and six of its kinds beside a real edge."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.neighbours import frames, report, turns
from loadtest.neighbours.client import schedule
from loadtest.neighbours.kinds import FEW, KINDS
from loadtest.neighbours.kinds.windows import Windows
from loadtest.neighbours.options import parse
from loadtest.neighbours.peers.edge import merged
from loadtest.neighbours.verdict import MIB, Figures, Goal, Row, figures, misses

IDLE = Figures(p50=0.5, p99=1.0, longest=2.0, answers=100)
GOOD = Row(
    "kind", "edgeproxy", IDLE, replace(IDLE, p99=21.0, longest=100.0), (), 6, 64 * MIB, killed=False, after=100.0
)


def test_schedule_is_steady() -> None:
    assert list(schedule(10.0, 0.5, 8.0)) == [10.0, 10.125, 10.25, 10.375]


def test_figures_are_nearest_ranks_in_milliseconds() -> None:
    assert figures([number / 1000 for number in range(200, 0, -1)]) == Figures(101.0, 199.0, 200.0, 200)


def test_figures_of_no_answer_miss_every_goal() -> None:
    assert {"p99", "longest"} <= set(misses(replace(GOOD, beside=figures([])), Goal()))


def test_row_at_the_bounds_holds_the_goal() -> None:
    assert misses(GOOD, Goal()) == []


@pytest.mark.parametrize(
    ("row", "missed"),
    [
        (replace(GOOD, beside=replace(GOOD.beside, p99=21.1)), "p99"),
        (replace(GOOD, beside=replace(GOOD.beside, longest=100.1)), "longest"),
        (replace(GOOD, errors=("reset",)), "cut"),
        (replace(GOOD, connections=0), "no attack"),
        (replace(GOOD, killed=True), "worker replaced"),
        (replace(GOOD, growth=64 * MIB + 1), "memory"),
        (replace(GOOD, after=100.1), "afterwards"),
        (replace(GOOD, after=None), "afterwards"),
    ],
)
def test_each_bound_is_judged(row: Row, missed: str) -> None:
    assert misses(row, Goal()) == [missed]
    assert f"misses: {missed}" in report.cells(row, Goal())


def test_factor_of_the_goal_extends_waits_and_not_memory() -> None:
    assert Goal().scaled(10.0) == Goal(added_p99=200.0, longest=1000.0, growth=64.0)


def test_longest_turn_is_the_highest_bucket_that_grew() -> None:
    def page(*counts: int) -> dict[float, float]:
        bounds = ("0.01", "0.05", "+Inf")
        lines = (
            f'edge_loop_turn_seconds_bucket{{worker="0",le="{bound}"}} {count}'
            for bound, count in zip(bounds, counts, strict=True)
        )
        return turns.buckets("# TYPE edge_loop_turn_seconds histogram\n" + "\n".join(lines) + "\n")

    assert turns.longest(page(5, 6, 9), page(9, 12, 15)) == 50.0
    assert turns.longest(page(5, 6, 9), page(9, 12, 16)) == float("inf")
    assert turns.longest(page(5, 6, 9), page(5, 6, 9)) is None


def test_attacker_sends_within_windows() -> None:
    windows = Windows(range(1, 4, 2))
    assert (windows.take(1, 65_000), windows.take(3, 1000), windows.take(3, 1000)) == (65_000, 535, 0)
    inbox = bytearray(
        frames.window(0, 1000) + frames.frame(frames.SETTINGS, 0, 0, b"\x00\x04\x00\x00\x00\x64") + b"\x00"
    )
    assert windows.receive(inbox) == frames.frame(frames.SETTINGS, frames.ACK)
    # The smaller initial window also takes from open streams (RFC 9113 section 6.9.2).
    assert (windows.take(3, 1000), windows.streams[1], bytes(inbox)) == (0, 535 - 65_435, b"\x00")


def test_settings_of_a_row_are_joined_to_the_usual_ones() -> None:
    usual = {"routes": [1], "upstreams": {"a": {"endpoints": ["x"]}}, "drain": "2s"}
    more = {"routes": [2], "upstreams": {"b": {}}, "drain": "3s", "hub": "memory://"}
    assert merged(usual, more) == {
        "routes": [1, 2],
        "upstreams": {"a": {"endpoints": ["x"]}, "b": {}},
        "drain": "3s",
        "hub": "memory://",
    }


def test_addresses_of_one_network_are_ten_at_least() -> None:
    assert parse(["--from-64"]).connections == 10
    assert parse(["--from-64", "--kinds", "few"]).kinds == FEW


def test_every_kind_sends_bytes_or_waits() -> None:
    for kind in KINDS.values():
        assert isinstance(next(kind.pieces(bytearray()), b""), bytes | float), kind.name


@pytest.mark.alone
def test_no_client_waits_a_second_beside_six_hostile_connections(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    command = ["-m", "loadtest.neighbours", "--kinds", "few", "--peers", "edgeproxy", "--seconds", "1", "--goal", "10"]
    ran = subprocess.run([sys.executable, *command, "--json", rows], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert rows.read_text().count('"neighbour"') == len(FEW)
