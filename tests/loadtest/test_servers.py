"""Real application servers behind the edge: no answer is lost when they close idle connections."""

import asyncio
import sys
from pathlib import Path

import pytest

from loadtest.servers.__main__ import asked, tried
from loadtest.servers.load import Outcome, turn
from loadtest.servers.server import SERVERS, Means


@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-threads", "aiohttp"])
def test_every_request_gets_its_answer(name: str, tmp_path: Path) -> None:
    options = asked(["--requests", "480", "--clients", "12", "--each", "10"])
    outcome = tried(SERVERS[name], Means(sys.executable, folder=tmp_path), options)
    assert outcome.statuses == {200: 480}
    assert not outcome.faults


class Elsewhere:
    """A session that answers every request alike."""

    def __init__(self, status: int, said: bytes) -> None:
        self.status, self._said = status, said

    def request(self, *_: object, **__: object) -> "Elsewhere":
        return self

    async def __aenter__(self) -> "Elsewhere":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self) -> bytes:
        return self._said


@pytest.mark.parametrize(("status", "said", "faults"), [(200, b"0\n", 0), (200, b"1\n", 1), (502, b"", 1)])
def test_unexpected_answer_is_a_fault(status: int, said: bytes, faults: int) -> None:
    outcome = Outcome()
    asyncio.run(turn(Elsewhere(status, said), outcome, 1, 0.0, 0.0))  # type: ignore[arg-type]
    assert outcome.faults == faults
