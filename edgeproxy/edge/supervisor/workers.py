"""The workers of one supervisor: as many as configured, dead ones replaced, all drained at the end.

They change from one configuration to another together: all serving workers `prepare` it, or none of them gets it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.edge.channel import ChannelClosedError, Frame, UnknownMessageError, get_message_type
from edgeproxy.edge.messages import (
    Commit,
    Discard,
    Drain,
    Prepare,
    Prepared,
    PrepareFailed,
    SetEndpoints,
    Start,
    ToSupervisor,
    ToWorker,
)
from edgeproxy.edge.supervisor import backoff
from edgeproxy.edge.supervisor.heartbeat import CHECKS_PER_HUNG_TIME, HUNG_SECONDS
from edgeproxy.edge.supervisor.process import MessageHandler, WorkerProcess
from edgeproxy.edge.supervisor.worker_template import WorkerTemplate

WorkerMessage = ToWorker | Frame[ToWorker]

LAST_WORDS_SECONDS = 1.0
"""Seconds that a worker has to end by itself after its channel has ended, and all workers beyond the drain."""

LEFT_BEHIND_SECONDS = 30.0
"""Seconds that a worker has to leave if it cannot follow the others to another configuration."""


class Workers:
    """A number of places, each held by one worker at a time. Lives in one event loop."""

    def __init__(
        self,
        places: int,
        command: Sequence[str],
        listening: Sequence[socket.socket],
        start: Start | Frame[Start],
        *,
        silence: float = HUNG_SECONDS,
        on_message: MessageHandler = lambda message, reply: None,
        columns_will_free: Callable[[], bool] = lambda: False,
        template: WorkerTemplate | None = None,
    ) -> None:
        """Create the places of workers.

        `start` is the first message to each worker. `silence` is the seconds of silence until a serving worker is
        replaced. `on_message` handles messages of workers that are not about themselves. `columns_will_free` returns
        whether the holders of missing columns will leave. `template` forks workers; `command` starts them without one.
        """
        self._on_message, self._columns_will_free = on_message, columns_will_free
        self.restarts = 0
        """Workers that were started after another one died."""
        self.number = 1
        """Number of the configuration that all should serve."""
        self.first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolves when every place has had a worker that was ready; raises WorkersFailedError when none ever will."""
        self._command, self._template = command, template
        self._listening = listening
        self._start: Start | Frame[Start] = start
        """The first message to each worker."""
        self._start_messages: dict[tuple[type[ToWorker], str], WorkerMessage] = {}
        """The messages that each worker gets after that, by type."""
        self._offered: WorkerMessage | None = None
        """The message of the configuration that is being prepared."""
        self._news = asyncio.Event()
        """Set when a worker has sent a message or is gone."""
        self._held: list[WorkerProcess | None] = [None] * places
        self._was_ready = [False] * places
        self._failures: list[str | None] = [None] * places
        self._leaving = asyncio.Event()
        self._fills: list[asyncio.Task[None]] = []
        self._silence = silence
        self._tasks = Tasks()
        self._log = log.get_logger()

    @property
    def places(self) -> int:
        """The configured number of workers."""
        return len(self._held)

    @property
    def workers(self) -> list[WorkerProcess]:
        """The living workers, in the order of their places."""
        return list(self.by_place.values())

    @property
    def by_place(self) -> dict[int, WorkerProcess]:
        """The living workers by place, from 0."""
        return {
            place: process
            for place, process in enumerate(self._held)
            if process is not None and not process.ended.done()
        }

    @property
    def ready(self) -> int:
        """The number of workers that serve."""
        return sum(process.has_served for process in self._serving)

    def start(self) -> None:
        """Fill all places, and keep them filled until `drain`."""
        for place in range(self.places):
            self._fills.append(self._tasks.start(f"worker {place}", self._fill(place)))
        self._tasks.start("heartbeats", self._kill_hung_workers())

    def send(self, message: WorkerMessage) -> None:
        """Send a message to all living workers, without waiting: see channel.Outbox."""
        for process in self.workers:
            process.outbox.send_latest(message)

    def add(self, message: ToWorker) -> None:
        """Send a message to all living workers, after all other added messages and replacing none of them."""
        for process in self.workers:
            process.outbox.append(message)

    def publish(self, message: WorkerMessage, subject: str = "") -> None:
        """Send a message to all workers, also to workers that start later, until another one of its type is published
        about `subject`.
        """
        self._start_messages[get_message_type(message), subject] = message
        self.send(message)

    # ---- from one configuration to another

    async def prepare(self, number: int, message: Prepare | Frame[Prepare], seconds: float) -> list[str]:
        """Make the workers prepare configuration `number`; return why any serving workers cannot.

        Workers that start meanwhile get the message too. Call `commit` or `discard` immediately afterwards.
        """
        self._offered = message
        self.send(message)
        try:
            async with asyncio.timeout(seconds):
                while not self._leaving.is_set():
                    refused = [one for one in self._serving if one.refused[0] == number]
                    refusals = [f"worker {one.pid}: {one.refused[1]}" for one in refused]
                    if refusals or all(one.prepared == number for one in self._serving):
                        return refusals
                    await self._wait_for_news()
        except TimeoutError:
            silent = [one.pid for one in self._serving if one.prepared != number]
            return [f"worker {pid}: it was not ready to serve it within {seconds:g} s" for pid in silent]
        return ["the edge is draining"]

    def lack_memory(self, number: int) -> bool:
        """Return whether serving workers could not receive the memory of configuration `number`, and refused it."""
        return any(one.refused[::2] == (number, True) for one in self._serving)

    def commit(self, number: int, start: Start | Frame[Start]) -> None:
        """Make all workers serve `number` from now on. `start` is for workers that start later."""
        self.number = number
        self._start = start
        self._offered = None
        for process in self.workers:
            self._bring_forward(process)

    def discard(self, number: int) -> None:
        """Discard the prepared configuration `number`."""
        self._offered = None
        self.send(Discard(number))
        for process in self.workers:
            # The worker has yet to change to the serving configuration, and has dropped that one for the discarded one.
            if process.number != self.number and not process.dismissed:
                self._dismiss(process, "it did not come to serve what the others do in time")

    async def wait_until_followed(self, seconds: float) -> list[int]:
        """Wait until every worker serves the configuration that it should.

        Return the pids of workers that do not by then.
        """
        try:
            async with asyncio.timeout(seconds):
                while self._behind() and not self._leaving.is_set():
                    await self._wait_for_news()
        except TimeoutError:
            pass
        return self._behind()

    async def wait_until_challenges_served(self, number: int, seconds: float) -> list[str]:
        """Wait until all serving workers answer the challenges with this number, or later ones.

        Return why any of them cannot. The wait begins when each place has had a worker that was ready. Raises
        WorkersFailedError.
        """
        # Several callers may wait for this future, and the end of one of them must not cancel it.
        await asyncio.shield(self.first_ready)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    late = self._list_late(number)
                    failed = [one for one in self._serving if one.challenges[1] and one not in late]
                    if failed or (self._serving and not late):
                        return [f"worker {one.pid}: {one.challenges[1]}" for one in failed]
                    await self._wait_for_news()
        except TimeoutError:
            late = self._list_late(number)
            whys = [f"worker {worker.pid}: it did not take the challenge within {seconds:g} s" for worker in late]
            return whys or ["no worker serves"]

    def _list_late(self, number: int) -> list[WorkerProcess]:
        """Return the serving workers that have not taken the challenges with this number."""
        return [one for one in self._serving if one.challenges[0] < number]

    @property
    def _serving(self) -> list[WorkerProcess]:
        return [process for process in self.workers if process.ready and not process.dismissed]

    def _behind(self) -> list[int]:
        return [worker.pid for worker in self.workers if worker.number != self.number and not worker.dismissed]

    async def _wait_for_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _bring_forward(self, process: WorkerProcess) -> None:
        """Change a worker to the configuration that all should serve, or replace it."""
        if process.number == self.number or process.dismissed:
            return
        if process.prepared == self.number:
            process.outbox.send_latest(Commit(self.number))
            if (SetEndpoints, "") in self._start_messages:
                # It may have got them before it began to prepare, when they meant nothing to it.
                process.outbox.send_latest(self._start_messages[SetEndpoints, ""])
        elif process.refused[0] == self.number:
            self._dismiss(process, f"it cannot serve what the others do: {process.refused[1]}")

    def _dismiss(self, process: WorkerProcess, why: str) -> None:
        """Replace a worker that cannot follow the others."""
        process.dismissed = True
        process.why = why
        self._log.error("worker cannot be reloaded, replacing it", pid=process.pid, why=why)
        process.outbox.send_latest(Drain(LEFT_BEHIND_SECONDS))

    # ---- the end

    async def drain(self, deadline: float) -> None:
        """Let all workers finish within `deadline` seconds, and end the rest a second later.

        A worker that was never ready has nothing to finish, and gets only the second.
        """
        self._leaving.set()
        self._news.set()
        self.send(Drain(deadline))
        await self._until_empty(LAST_WORDS_SECONDS)
        self._kill([process for process in self.workers if not process.ready])
        await self._until_empty(deadline)
        self._kill(self.workers)
        await self._until_empty(None)
        await self._tasks.cancel()

    def kill(self) -> None:
        """Kill all workers at once, in another thread than the loop's. Logs nothing, as the log may be what hangs."""
        for process in list(self.workers):
            with suppress(OSError):  # It has ended meanwhile.
                process.kill()

    async def _fill(self, place: int) -> None:
        early = 0
        while not self._leaving.is_set():
            began = monotonic()
            ended = await self._run_worker(place)
            if self._leaving.is_set():
                return
            crowded = ended.pop("crowded", False)
            early, wait = backoff.compute_backoff(early, monotonic() - began)
            self._log.error("worker died", place=place, restart_in=wait, **ended)
            if not (crowded and self._columns_will_free()):
                self._record_failed_start(place, str(ended["why"]))
            try:
                await asyncio.wait_for(self._leaving.wait(), wait)
            except TimeoutError:
                self.restarts += 1

    async def _run_worker(self, place: int) -> dict[str, object]:
        """Run one worker in this place to its end, and return the known facts about its end."""
        try:
            process = self._held[place] = await WorkerProcess.start(self._command, self._listening, self._template)
        except OSError as error:
            return {"why": f"it could not be started: {error}"}
        if self._leaving.is_set():
            process.kill()  # It started too late to get the message to drain.
        process.ended.add_done_callback(lambda _: self._news.set())
        process.number = self.number
        process.on_message = self._on_message
        for message in (self._start, *self._start_messages.values()):
            process.outbox.send_latest(message)
        if self._offered is not None:
            process.outbox.send_latest(self._offered)
        telling = self._tasks.start(f"tell {process.pid}", process.outbox.deliver())
        try:
            while True:
                received = await process.channel.receive()
                process.apply_message(received)
                self._handle_message(place, process, received)
        except UnknownMessageError as error:
            process.why = str(error)
        except ChannelClosedError:
            pass  # It is gone, or about to go.
        if not self._leaving.is_set():
            await asyncio.wait([process.ended], timeout=LAST_WORDS_SECONDS)
            process.kill()
        code = await process.ended
        telling.cancel()
        process.channel.close()
        ended = {"pid": process.pid, "exit": code, "why": process.why or describe_exit(code)}
        return ended | {"crowded": process.lacks_column}

    def _handle_message(self, place: int, process: WorkerProcess, message: ToSupervisor) -> None:
        """Handle a worker's message beyond its own state."""
        self._news.set()
        if isinstance(message, Prepared | PrepareFailed):
            self._bring_forward(process)
        if process.ready and not process.has_served and process.number == self.number:
            process.has_served = True
            self._welcome(place, process)

    async def _kill_hung_workers(self) -> None:
        """Kill workers that hang, also during a drain."""
        while True:
            await asyncio.sleep(self._silence / CHECKS_PER_HUNG_TIME)
            for process in self.workers:
                if process.ready and process.heartbeat.is_hung():
                    process.why = f"it said nothing for {self._silence:g} s"
                    self._log.error("worker hangs, killed", pid=process.pid, why=process.why)
                    # Otherwise the next look would kill it and log it again before its end is known.
                    process.heartbeat.beat()
                    process.kill()

    def _welcome(self, place: int, process: WorkerProcess) -> None:
        self._log.info("worker ready", place=place, pid=process.pid, column=process.column)
        self._was_ready[place] = True
        if all(self._was_ready) and not self.first_ready.done():
            self.first_ready.set_result(None)

    def _record_failed_start(self, place: int, why: str) -> None:
        if self._was_ready[place]:
            return
        self._failures[place] = why
        if not any(self._was_ready) and all(self._failures) and not self.first_ready.done():
            self.first_ready.set_exception(WorkersFailedError(tuple(why for why in self._failures if why)))

    async def _until_empty(self, seconds: float | None) -> None:
        if self._fills:
            await asyncio.wait(self._fills, timeout=seconds)

    def _kill(self, workers: Sequence[WorkerProcess]) -> None:
        for process in workers:
            self._log.warning("worker killed", pid=process.pid, why="it did not leave in time")
            process.kill()


class WorkersFailedError(Exception):
    """No worker started; `whys` are the reasons of the first worker of each place."""

    def __init__(self, whys: tuple[str, ...]) -> None:
        super().__init__("; ".join(dict.fromkeys(whys)))
        self.whys = whys


def describe_exit(code: int) -> str:
    """Describe an exit code."""
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
