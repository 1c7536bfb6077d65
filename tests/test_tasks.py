"""Work in a thread of its own: what comes of it is heard, and what never ends keeps nobody from ending."""

import threading

import pytest
import uvloop

from edgeproxy.tasks import in_thread
from tests.support.waiting import turned


def test_what_work_returns_or_raises_is_heard() -> None:
    async def scene() -> None:
        assert await in_thread("right", lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await in_thread("wrong", lambda: 1 // 0)

    uvloop.run(scene())


def test_who_waits_no_more_hears_nothing_and_the_end_waits_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate, passed = threading.Event(), threading.Event()

    def slow() -> None:
        gate.wait(20)
        passed.set()
        raise OSError

    async def scene() -> None:
        given_up = in_thread("given up", slow)
        given_up.cancel()
        gate.set()
        await turned(passed.is_set, "it has ended")
        await in_thread("after it", lambda: None)
        gate.clear()
        passed.clear()
        in_thread("without end", slow)

    uvloop.run(scene())
    assert not passed.is_set(), "the loop has ended before the work"
    gate.set()
    assert passed.wait(20)
    assert not caplog.records
