"""The generator's client: one attempt and no more, whatever a server does; the next region only if nothing was sent."""

import json
import subprocess
import sys
from typing import Any

import pytest

from loadtest.record import BROKEN
from loadtest.testbed.process import ROOT


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.loadtest.attempts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def test_a_get_that_is_not_answered_was_sent_once(told: dict[str, Any]) -> None:
    assert told["closed"] == {"asked": 1, "status": BROKEN}


def test_truncated_answer_is_a_failure(told: dict[str, Any]) -> None:
    assert told["half"] == {"asked": 1, "status": BROKEN}


def test_redirects_are_not_followed(told: dict[str, Any]) -> None:
    assert told["redirect"] == {"asked": 1, "status": 302, "followed": 0}


def test_a_429_is_an_answer_in_a_row_of_its_own_for_locust(told: dict[str, Any]) -> None:
    assert told["limited"] == {"asked": 1, "status": 429}
    assert "near pro GET /v1/x 429 True" in told["locust saw"]
    assert "near pro GET /v1/x False" in told["locust saw"], "the client reports a broken answer as a failure"


def test_client_reuses_open_connections_and_drops_closed_ones(told: dict[str, Any]) -> None:
    assert told["closed while idle"] == [200, 200]
    assert told["reused"] == [200] * 3
    assert told["connections"] == 1, "in the place of the one that was closed while it was idle, and for all after it"
    assert told["above 1023"] == [[200] * 3, 1]


def test_client_sends_requests_from_its_configured_address(told: dict[str, Any]) -> None:
    assert told["address"] == "127.0.2.9"


def test_refused_client_moves_to_the_next_region_and_stays(told: dict[str, Any]) -> None:
    assert told["moved"] == [[0, 200, True]] * 2
    assert not any("far pro GET /v1/x False" in row for row in told["locust saw"]), "the first attempt was no request"


def test_slow_readers_are_timed_by_the_first_byte(told: dict[str, Any]) -> None:
    assert told["slow"] == [200, True, True]
