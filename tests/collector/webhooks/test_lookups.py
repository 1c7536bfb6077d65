"""A receiver with a silent name server delays no other receiver."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edgeproxy.base.shares import Share
from edgeproxy.collector.webhooks.http_post import (
    LOOKUPS_MAX,
    OPERATOR_LOOKUPS,
    DeliveryFailure,
    Lookups,
    post_body,
)

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


async def post(host: str, lookups: Lookups, customer: str = "acme") -> DeliveryFailure | None:
    claim = (Share(f"customer {customer}", 1 / 5),)
    return await post_body(f"https://{host}/hook", b"{}", {}, lambda _: "nobody goes anywhere", lookups, claim)


async def test_silent_name_servers_do_not_delay_other_lookups(silent: None) -> None:
    lookups = Lookups(LOOKUPS_MAX)

    async with asyncio.timeout(20), asyncio.TaskGroup() as attempts:
        waiting = [
            attempts.create_task(post(f"host{number}.silent", lookups, f"customer{number}"))
            for number in range(2 * THREADS_MAX)
        ]
        failure = await post("localhost", lookups)
        assert failure is not None
        assert failure.why == "nobody goes anywhere", "other names are looked up"
        assert await asyncio.to_thread(lambda: "done") == "done"
        for attempt in waiting:
            attempt.cancel()


async def test_customer_with_silent_name_servers_leaves_lookups_to_others_and_to_operators(silent: None) -> None:
    lookups = Lookups(20)

    async with asyncio.timeout(20), asyncio.TaskGroup() as attempts:
        waiting = [attempts.create_task(post(f"host{number}.silent", lookups)) for number in range(20)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        failure = done.pop().result()
        assert failure is not None
        assert failure.why == "it cannot be reached: too many names are being looked up"
        for other in (post("localhost", lookups, "other"), post("localhost", OPERATOR_LOOKUPS)):
            failure = await other
            assert failure is not None
            assert failure.why == "nobody goes anywhere", "the name is looked up"
        for attempt in waiting:
            attempt.cancel()
