"""A server for one test, in a thread with its own event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Self


class Threaded:
    """The thread, from `with` to its end: `_begin` and `_end` run in its loop."""

    def __init__(self, name: str, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        """`loop` creates a special event loop."""
        self._make = loop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._make) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        await self._begin()
        self._ready.set()
        await self._over.wait()
        await self._end()

    async def _begin(self) -> None:
        """Start; the body of `with` runs after this."""
        raise NotImplementedError

    async def _end(self) -> None:
        """Stop."""
        raise NotImplementedError
