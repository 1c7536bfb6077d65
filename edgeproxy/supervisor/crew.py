"""The workers of one supervisor: as many as configured, dead ones replaced, all drained at the end."""

import asyncio
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Any

from edgeproxy import log
from edgeproxy.channel import ChannelClosed
from edgeproxy.supervisor import backoff
from edgeproxy.supervisor.process import Process
from edgeproxy.tasks import Tasks

LAST_WORDS = 1.0
"""Seconds that a worker gets to end by itself after its channel has ended, and all get beyond the drain."""


class Crew:
    """A number of places, each held by one worker at a time. Lives in one event loop."""

    def __init__(
        self,
        places: int,
        command: Sequence[str],
        listening: Sequence[socket.socket],
        config: dict[str, Any],
    ) -> None:
        self.restarts = 0
        """Workers started anew after one died."""
        self.first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolves when every place has had a worker that was ready; raises Stillborn when none ever will."""
        self._command = command
        self._listening = listening
        self._standing = {"config": config}
        """What each worker is told when it starts, by type; the configuration first."""
        self._held: list[Process | None] = [None] * places
        self._was_ready = [False] * places
        self._failures: list[str | None] = [None] * places
        self._leaving = asyncio.Event()
        self._fills: list[asyncio.Task[None]] = []
        self._tasks = Tasks()
        self._log = log.get()

    @property
    def places(self) -> int:
        """How many workers there should be."""
        return len(self._held)

    @property
    def workers(self) -> list[Process]:
        """The living ones, in the order of their places."""
        return [process for process in self._held if process is not None and not process.ended.done()]

    @property
    def ready(self) -> int:
        """How many workers serve at this moment."""
        return sum(process.ready for process in self.workers)

    def start(self) -> None:
        """Fill all places, and keep them filled until `drain`."""
        for place in range(self.places):
            self._fills.append(self._tasks.start(f"worker {place}", self._fill(place)))

    def tell(self, message: dict[str, Any]) -> None:
        """Tell all workers that there are. Nobody is waited for: see channel.Outbox."""
        for process in self.workers:
            process.outbox.put(message)

    def publish(self, message: dict[str, Any]) -> None:
        """Tell all workers, and those that start from now on, until another message of this type is published."""
        self._standing[message["type"]] = message
        self.tell(message)

    async def drain(self, deadline: float) -> None:
        """Let all workers finish within `deadline` seconds, and end what is left a second later.

        A worker that never got ready has nothing to finish and gets the second alone.
        """
        self._leaving.set()
        self.tell({"type": "drain", "deadline": deadline})
        await self._until_empty(LAST_WORDS)
        self._kill([process for process in self.workers if not process.ready])
        await self._until_empty(deadline)
        self._kill(self.workers)
        await self._until_empty(None)
        await self._tasks.cancel()

    async def _fill(self, place: int) -> None:
        early = 0
        while not self._leaving.is_set():
            began = monotonic()
            ended = await self._live(place)
            if self._leaving.is_set():
                return
            early, wait = backoff.after(early, monotonic() - began)
            self._log.error("worker died", place=place, restart_in=wait, **ended)
            self._mourn(place, str(ended["why"]))
            try:
                await asyncio.wait_for(self._leaving.wait(), wait)
            except TimeoutError:
                self.restarts += 1

    async def _live(self, place: int) -> dict[str, object]:
        """One worker's life in this place; what is known of its end."""
        try:
            process = self._held[place] = await Process.start(self._command, self._listening)
        except OSError as why:
            return {"why": f"it could not be started: {why}"}
        if self._leaving.is_set():
            process.kill()  # it came too late to hear of the drain
        for message in self._standing.values():
            process.outbox.put(message)
        telling = self._tasks.start(f"tell {process.pid}", process.outbox.deliver())
        try:
            while True:
                if process.heard(await process.channel.receive()) == "ready":
                    self._welcome(place, process)
        except (ChannelClosed, ValueError, KeyError, TypeError):
            # Gone, about to go, or talking nonsense; the first two end by themselves.
            pass
        if not self._leaving.is_set():
            await asyncio.wait([process.ended], timeout=LAST_WORDS)
            process.kill()
        code = await process.ended
        telling.cancel()
        process.channel.close()
        return {"pid": process.pid, "exit": code, "why": process.why or reason(code)}

    def _welcome(self, place: int, process: Process) -> None:
        self._log.info("worker ready", place=place, pid=process.pid, column=process.column)
        self._was_ready[place] = True
        if all(self._was_ready) and not self.first_ready.done():
            self.first_ready.set_result(None)

    def _mourn(self, place: int, why: str) -> None:
        if self._was_ready[place]:
            return
        self._failures[place] = why
        if not any(self._was_ready) and all(self._failures) and not self.first_ready.done():
            self.first_ready.set_exception(Stillborn(tuple(why for why in self._failures if why)))

    async def _until_empty(self, seconds: float | None) -> None:
        if self._fills:
            await asyncio.wait(self._fills, timeout=seconds)

    def _kill(self, workers: Sequence[Process]) -> None:
        for process in workers:
            self._log.warning("worker killed", pid=process.pid, why="it did not leave in time")
            process.kill()


class Stillborn(Exception):
    """No worker came up; `whys` is what the first of each place said."""

    def __init__(self, whys: tuple[str, ...]) -> None:
        super().__init__("; ".join(dict.fromkeys(whys)))
        self.whys = whys


def reason(code: int) -> str:
    """What an exit code says by itself."""
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
