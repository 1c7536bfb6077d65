"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

STEP = 0.02


def until(condition: Callable[[], T], what: str, *, seconds: float = 60.0, step: float = STEP) -> T:
    """What `condition` gives once it is true, asked every `step` seconds; fails after `seconds`, saying `what` did not
    come about."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(step)
    return found


async def turned(condition: Callable[[], T], what: str, *, seconds: float = 60.0) -> T:
    """`until` for a condition that changes in this event loop."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(STEP)
    return found


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` gives; fails where it takes longer."""
    async with asyncio.timeout(seconds):
        return await work


def wait_until(moment: float) -> None:
    """Until the monotonic clock says so: the time is the condition here."""
    until(lambda: time.monotonic() >= moment, "time passes", seconds=120)
