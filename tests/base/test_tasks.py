"""Work in a separate thread: its outcome arrives, and endless work does not delay the end of the process."""

import asyncio
import threading

import pytest
import uvloop

from edgeproxy.base import tasks
from edgeproxy.base.tasks import Tasks, run_in_thread
from loadtest.testbed.waiting import turned


def test_what_work_returns_or_raises_is_heard() -> None:
    async def scene() -> None:
        assert await run_in_thread("right", lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await run_in_thread("wrong", lambda: 1 // 0)

    uvloop.run(scene())


def test_who_waits_no_more_hears_nothing_and_the_end_waits_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate, passed = threading.Event(), threading.Event()

    def slow() -> None:
        gate.wait(20)
        passed.set()
        raise OSError

    async def scene() -> None:
        given_up = run_in_thread("given up", slow)
        given_up.cancel()
        gate.set()
        await turned(passed.is_set, "it has ended")
        await run_in_thread("after it", lambda: None)
        gate.clear()
        passed.clear()
        run_in_thread("without end", slow)

    uvloop.run(scene())
    assert not passed.is_set(), "the loop has ended before the work"
    gate.set()
    assert passed.wait(20)
    assert not caplog.records


def test_who_takes_its_end_for_another_failure_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)

    async def job() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionError("the connection is gone")  # As a transaction does that cannot be rolled back.

    async def jobs() -> None:
        for _ in range(2):
            try:
                await job()
            except ConnectionError:
                continue
        await asyncio.sleep(60)

    async def scene() -> None:
        owner = Tasks()
        task = owner.start("jobs", jobs())
        await asyncio.sleep(0)
        await asyncio.wait_for(owner.cancel(), 20)
        assert task.cancelled()

    uvloop.run(scene())
