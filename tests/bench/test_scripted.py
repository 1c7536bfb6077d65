"""Exchanges whose instructions are counted take place: the program has what a worker asks of a transport."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "scenario", ["post10k", "vary", "429", "64k", "fallback", "http2-10", "http2-vary", "http2-64k"]
)
def test_exchanges_take_place_without_sockets(scenario: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.bench.measure.scripted", tmp_path, scenario, "20"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
