"""Clients that send requests continuously, each at its own pace, and record the answers."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import Self

from loadtest.testbed.customers import key_of
from loadtest.testbed.load_clients import content_length
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import SLOWNESS

ANSWERED = 10.0 * SLOWNESS
"""Seconds within which there is an answer, however busy the machine is."""


class Asking:
    """Connections of one customer, from `async with` to its end; lost ones are made anew."""

    def __init__(
        self,
        port: int,
        customer: str,
        *,
        path: str = "/quick",
        connections: int = 3,
        pause: float = 0.05,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Each connection asks, and pauses for so many seconds once it has an answer."""
        self.customer = customer
        self.told: list[tuple[float, float, int]] = []
        """When it was asked, when it was answered (seconds of the monotonic clock), and the status."""
        self.lost = 0
        """Requests that were not answered."""
        self.refused = 0
        """Attempts to connect that failed."""
        lines = {"Host": "asking.test", "X-API-Key": key_of(customer), **(fields or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._request = f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
        self._port, self._connections, self._pause = port, connections, pause
        self._over = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for number in range(self._connections):
            self._group.create_task(self._ask(number))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._over.set()
        await self._group.__aexit__(kind, error, at)

    @property
    def statuses(self) -> Counter[int]:
        """The number of answers by status."""
        return Counter([status for *_, status in self.told])

    def passed(self) -> list[tuple[float, float]]:
        """Return the times of request and answer of admitted requests, in the order of the answers."""
        return [(asked, answered) for asked, answered, status in self.told if status == 200]

    async def _ask(self, number: int) -> None:
        await asyncio.sleep(self._pause * number / self._connections)
        while not self._over.is_set():
            try:
                reader, writer = await asyncio.open_connection(HOST, self._port)
            except OSError:
                self.refused += 1
                await asyncio.sleep(self._pause)
                continue
            try:
                while not self._over.is_set():
                    asked = monotonic()
                    writer.write(self._request)
                    async with asyncio.timeout(ANSWERED):
                        head = await reader.readuntil(b"\r\n\r\n")
                        await reader.readexactly(content_length(head[:-2]))
                    self.told.append((asked, monotonic(), int(head[9:12])))
                    if b"\r\nconnection: close" in head.lower():
                        break
                    await asyncio.sleep(self._pause)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()


@contextmanager
def at_work(*everyone: Asking) -> Iterator[None]:
    """Have them ask in a thread, while whoever wants that starts and ends processes."""
    over, loop = asyncio.Event(), asyncio.new_event_loop()
    failures: list[BaseException] = []

    async def work() -> None:
        async with AsyncExitStack() as ends:
            for asking in everyone:
                await ends.enter_async_context(asking)
            await over.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(work())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="asking")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
    for failure in failures:
        raise failure
