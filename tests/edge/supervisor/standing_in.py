"""Workers that are stand-ins, run the way a supervisor runs them."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edgeproxy.config.addresses import Address
from edgeproxy.edge.messages import Start
from edgeproxy.edge.supervisor import sockets
from edgeproxy.edge.supervisor.workers import Workers
from loadtest.testbed.waiting import within

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def start(behaviour: str = "serves", number: int = 1) -> Start:
    """Return the start message of a stand-in."""
    return Start(number, behaviour.encode(), state="", tables_dir=None, token=1, orphan_deadline=0.0)


def run(
    scene: Callable[[Workers, Address], Awaitable[None]],
    behaviour: str = "serves",
    places: int = 2,
    deadline: float = 20.0,
    silence: float = 60.0,
    patient: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Play `scene` with started workers, then drain them. Return the exit codes of the workers that were alive."""

    async def play() -> list[int]:
        listening = sockets.bind_all([Address("127.0.0.1", 0), Address("127.0.0.1", 0)])
        workers = Workers(places, STAND_IN, listening, start(behaviour), silence=silence, columns_will_free=patient)
        workers.start()
        try:
            await within(60, scene(workers, sockets.get_address(listening[0])))
        finally:
            living = workers.workers
            sockets.close_all(listening)
            await within(30, workers.drain(deadline))
        assert not workers.workers
        return [process.ended.result() for process in living]

    return uvloop.run(play())


async def ask(address: Address) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await reader.read()
    writer.close()
    body: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return body


async def ready(workers: Workers) -> None:
    await within(20, asyncio.shield(workers.first_ready))
