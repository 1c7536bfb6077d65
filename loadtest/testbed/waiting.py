"""Waiting for a condition, with a deadline."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SLOWNESS = float(os.environ.get("EDGEPROXY_SLOWNESS", "1"))
"""By how much deadlines are longer here than tests say: more than 1 under an emulator."""

STEP, STEP_MAX = 0.02, 0.05
"""Seconds between two looks at a condition, first and later on: most are requests, which take CPU on both sides."""
GROWTH = 1.1
"""By which the step grows each time."""


def stretched(seconds: float) -> str:
    """So many seconds, times SLOWNESS, as a configuration says it."""
    return f"{seconds * SLOWNESS:g}s"


def until(condition: Callable[[], T], what: str, *, seconds: float = 60.0, step: float | None = None) -> T:
    """Poll `condition` every `step` seconds, or ever less often, and return its first true result.

    Fails after `seconds` (times SLOWNESS), with `what` in the message.
    """
    seconds *= SLOWNESS
    deadline, pause = time.monotonic() + seconds, step or STEP
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)
        pause = step or min(pause * GROWTH, STEP_MAX)
    return found


async def turned(condition: Callable[[], T], what: str, *, seconds: float = 60.0) -> T:
    """`until` for a condition that changes in this event loop."""
    seconds *= SLOWNESS
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(STEP)
    return found


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of `work`; fails if it takes longer."""
    async with asyncio.timeout(seconds * SLOWNESS):
        return await work


def wait_until(moment: float) -> None:
    """Wait until the monotonic clock shows this time: time itself is the condition here."""
    until(lambda: time.monotonic() >= moment, "time passes", seconds=120, step=STEP)
