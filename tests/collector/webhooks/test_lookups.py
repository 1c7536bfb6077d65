"""Receivers whose name server does not answer: whoever names them keeps nobody else waiting."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edgeproxy.collector.webhooks.http_post import DeliveryFailure, ThreadResolver, post_body

THREADS_MAX = 32
"""Threads that `asyncio.to_thread` has at most, on any machine."""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The name servers of `.silent` answer once the test is over."""
    over = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".silent"):
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return getaddrinfo(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    over.set()
    for thread in threading.enumerate():
        if thread.name == "look up a receiver":
            thread.join(60)


async def post(host: str) -> DeliveryFailure | None:
    return await post_body(f"https://{host}/hook", b"{}", {}, lambda _: "nobody goes anywhere")


def test_receivers_whose_name_server_is_silent_keep_no_other_work_waiting(silent: None) -> None:
    async def work() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as attempts:
            waiting = [attempts.create_task(post(f"host{number}.silent")) for number in range(2 * THREADS_MAX)]
            failure = await post("localhost")
            assert failure is not None
            assert failure.why == "nobody goes anywhere", "other names are looked up"
            assert await asyncio.to_thread(lambda: "done") == "done"
            for attempt in waiting:
                attempt.cancel()

    asyncio.run(work())


def test_only_so_many_names_are_looked_up_at_once(silent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadResolver, "lookups", threading.BoundedSemaphore(2))

    async def work() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as attempts:
            waiting = [attempts.create_task(post(f"host{number}.silent")) for number in range(3)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            failure = done.pop().result()
            assert failure is not None
            assert failure.why == "it cannot be reached: too many names are being looked up"
            for attempt in waiting:
                attempt.cancel()

    asyncio.run(work())
