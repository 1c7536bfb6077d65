"""The coarse timer, in a loop of its own and with sweeps a few milliseconds apart."""

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest
import uvloop

from edgeproxy.edge.proxy.transport import deadlines
from edgeproxy.edge.proxy.transport.deadlines import NEVER, Deadlines


class Late:
    """Somebody with a deadline, who notes what happens."""

    def __init__(self, deadline: float, then: Callable[[], None] = lambda: None) -> None:
        self.deadline = deadline
        self.times = 0
        self._then = then

    def on_timeout(self) -> None:
        self.times += 1
        self.deadline = NEVER
        self._then()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 0.005)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110, the code under test changes the condition
            await asyncio.sleep(0)


def test_sweep_calls_each_late_item_once() -> None:
    async def scene() -> None:
        sweeps = Deadlines()
        late, punctual, patient = Late(monotonic() - 1), Late(monotonic() + 60), Late(NEVER)
        sweeps.timed.update((late, punctual, patient))
        seen = []
        sweeps.add_sweep(lambda: seen.append(late.times))
        sweeps.start()
        await until(lambda: len(seen) >= 3)
        sweeps.stop()
        assert (late.times, punctual.times, patient.times) == (1, 0, 0)

    uvloop.run(scene())


def test_renewed_deadline_fires_again() -> None:
    async def scene() -> None:
        sweeps = Deadlines()
        late = Late(monotonic() - 1)
        sweeps.timed.add(late)
        sweeps.start()
        await until(lambda: late.times == 1)
        late.deadline = monotonic() - 1
        await until(lambda: late.times == 2)
        sweeps.stop()

    uvloop.run(scene())


def test_sweep_survives_removals_during_its_calls() -> None:
    async def scene() -> None:
        sweeps = Deadlines()
        late = [Late(monotonic() - 1, then=sweeps.timed.clear) for _ in range(3)]
        sweeps.timed.update(late)
        sweeps.start()
        await until(lambda: all(each.times == 1 for each in late))
        sweeps.stop()

    uvloop.run(scene())


def test_timer_continues_after_a_callback_error() -> None:
    async def scene() -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        sweeps = Deadlines()

        def fail() -> None:
            raise RuntimeError("on purpose")

        broken, late = Late(monotonic() - 1, then=fail), Late(NEVER)
        sweeps.timed.update((broken, late))
        sweeps.start()
        await until(lambda: bool(errors))
        late.deadline = monotonic() - 1
        await until(lambda: late.times == 1)
        sweeps.stop()

    uvloop.run(scene())


def test_stopped_timer_calls_nothing() -> None:
    async def scene() -> None:
        sweeps, other = Deadlines(), Deadlines()
        late = Late(monotonic() - 1)
        sweeps.timed.add(late)
        sweeps.start()
        sweeps.stop()
        turns: list[None] = []
        other.add_sweep(lambda: turns.append(None))
        other.start()
        await until(lambda: len(turns) >= 3)
        other.stop()
        assert late.times == 0

    uvloop.run(scene())


def test_stop_before_start_does_nothing() -> None:
    Deadlines().stop()
