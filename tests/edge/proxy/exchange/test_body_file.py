"""The queue of disk operations: bodies that end leave it, and files close first."""

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from edgeproxy.base.tasks import Tasks
from edgeproxy.edge.proxy.exchange.body_file import (
    OPERATIONS_MAX,
    READ_BYTES,
    BodyFile,
    BodySpace,
    OperationQueue,
    build_claim,
)
from tests.support.transcript import Edge, head

LARGE = 400_000
"""Bytes of a body that goes to disk."""


async def take_all(queue: OperationQueue) -> None:
    assert all([await queue.request() for _ in range(OPERATIONS_MAX)])


def test_operations_run_in_order_and_closes_first() -> None:
    asyncio.run(check_order())


async def check_order() -> None:
    queue = OperationQueue()
    await take_all(queue)
    first, second, close = queue.request(), queue.request(), queue.request(is_close=True)
    order = []
    for name, place in (("first", first), ("second", second), ("close", close)):
        place.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
    for _ in range(3):
        queue.release()
        await asyncio.sleep(0)
    assert order == ["close", "first", "second"]
    assert queue.waiting == 0


def test_a_withdrawn_or_cancelled_request_takes_no_place() -> None:
    asyncio.run(check_ended_requests())


async def check_ended_requests() -> None:
    queue = OperationQueue()
    await take_all(queue)
    withdrawn, cancelled, last = queue.request(), queue.request(), queue.request()
    queue.withdraw(withdrawn)
    cancelled.cancel()
    queue.release()
    assert (await withdrawn, await last) == (False, True)
    queue.withdraw(last)
    assert last.result(), "a granted place stays granted"
    for _ in range(OPERATIONS_MAX):
        queue.release()
    await asyncio.wait_for(take_all(queue), 1)
    assert queue.waiting == 0


def test_body_file_closed_at_its_admission_releases_its_slot(tmp_path: Path) -> None:
    asyncio.run(check_closed_body(tmp_path))


async def check_closed_body(folder: Path) -> None:
    space, tasks = BodySpace(), Tasks()
    body = BodyFile(folder, space, build_claim(b"a"), tasks, lambda: None, lambda error: None)
    await take_all(space.operations)
    body.append(b"x")
    await asyncio.sleep(0)
    assert space.operations.waiting == 1
    space.operations.release()
    body.close()
    for _ in range(OPERATIONS_MAX - 1):
        space.operations.release()
    await asyncio.wait_for(take_all(space.operations), 5)
    assert space.used_bytes == 0


def test_body_file_sends_at_the_pace_of_the_upstream(tmp_path: Path) -> None:
    asyncio.run(check_sending(tmp_path))


async def check_sending(folder: Path) -> None:
    space, tasks, pieces = BodySpace(), Tasks(), []
    stored, written = asyncio.Event(), asyncio.Event()
    body = BodyFile(folder, space, build_claim(b"a"), tasks, stored.set, lambda error: None)

    def write(piece: bytes) -> bool:
        pieces.append(len(piece))
        written.set()
        return False

    body.append(b"x" * (3 * READ_BYTES))
    await stored.wait()
    body.send(write)
    for _ in range(2):
        await written.wait()
        written.clear()
        body.resume_sending()
    await written.wait()
    assert pieces == [READ_BYTES] * 3
    assert body.is_sent
    body.send(write)
    written.clear()
    await written.wait()
    body.close()
    await asyncio.wait_for(take_all(space.operations), 5)
    assert (len(pieces), space.used_bytes) == (4, 0)


def test_unreadable_body_file_fails_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    asyncio.run(check_failure(tmp_path))


async def check_failure(folder: Path) -> None:
    space, tasks = BodySpace(), Tasks()
    stored, failed = asyncio.Event(), asyncio.get_running_loop().create_future()
    body = BodyFile(folder, space, build_claim(b"a"), tasks, stored.set, failed.set_result)
    body.append(b"x")
    await stored.wait()
    body.send(lambda piece: True)
    assert (await failed).errno == 5
    body.close()
    await asyncio.wait_for(take_all(space.operations), 5)
    assert space.used_bytes == 0


async def test_a_body_that_ends_in_the_queue_leaves_it_at_once(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.config["upstreams"]["api"]["buffer"] = "4MiB"
    disk = threading.Event()
    make_file: Callable[..., IO[bytes]] = tempfile.TemporaryFile

    def wait_for_disk(**how: Any) -> IO[bytes]:
        disk.wait(30)
        return make_file(**how)

    monkeypatch.setattr(tempfile, "TemporaryFile", wait_for_disk)
    clients = []
    for _ in range(OPERATIONS_MAX + 2):
        clients.append(client := await edge.client())
        await client.sends(head("POST /public/ HTTP/1.1", "Host: h", f"Content-Length: {2 * LARGE}"), b"x" * LARGE)
    operations = edge.runtime.body_space.operations
    await edge.until(lambda: operations.waiting == 2, "two bodies wait for the disk")
    clients[-1].aborts()
    await edge.until(lambda: operations.waiting == 1, "the disk has not moved, and the body has left the queue")
    clients[0].aborts()
    await edge.until(lambda: len(edge.runtime.connections.clients) == OPERATIONS_MAX, "the running one has left too")
    disk.set()
    await edge.until(lambda: operations.waiting == 0, "the disk has moved")
    for client in clients[1:-1]:
        client.aborts()
    await edge.until(lambda: not edge.runtime.body_space.used_bytes, "no body is left")
