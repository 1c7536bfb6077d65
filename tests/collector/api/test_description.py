"""The API matches its OpenAPI description: schemathesis sends valid and invalid requests.

The suite sends a few constant requests, and only on PostgreSQL, because it accepts fewer texts than SQLite.
`EDGEPROXY_EXAMPLES=500` searches for new faults on both databases, with requests that follow from the run's seed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.testbed.collector import ADMIN, Collector
from loadtest.testbed.process import ROOT

EXAMPLES = os.environ.get("EDGEPROXY_EXAMPLES")
FEW = "2"
"""Requests of each kind that are made for each endpoint."""


@pytest.mark.parametrize(
    "collector",
    [pytest.param("sqlite", marks=() if EXAMPLES else pytest.mark.soak), "postgresql"],
    indirect=True,
)
def test_each_endpoint_answers_as_described(collector: Collector, tmp_path: Path, seed: int) -> None:
    drawn = ["--max-examples", EXAMPLES or FEW, "--seed", str(seed if EXAMPLES else 0)]
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        ROOT / "tests/collector/api/schemathesis.toml",
    ]
    options = ["--phases", "fuzzing", *drawn, "--no-color", "--suppress-health-check", "all"]
    # The first request builds the description, on a busy machine for longer than the 10 s that schemathesis waits.
    assert collector.get("/v1/openapi.json", token=ADMIN).status == 200
    url = f"http://127.0.0.1:{collector.port}/v1/openapi.json"
    token = ["--header", f"Authorization: Bearer {ADMIN}"]
    done = subprocess.run(
        [*command, "run", url, *token, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
