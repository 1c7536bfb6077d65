"""Whole edges in which something stands still: a worker, which is replaced; the supervisor, which blames nobody."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.supervisor import edges
from tests.supervisor.edges import Host, host
from tests.support.waiting import until

SILENCE = 2.5
"""Seconds of silence in these tests, after which a worker is taken to hang; workers speak every second."""

QUICK = f"""
from functools import partial
from edgeproxy.supervisor import main
main.Workers = partial(main.Workers, silence={SILENCE})
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(edges, "START", QUICK + edges.START)
    with host(tmp_path) as made:
        yield made


def test_a_worker_that_hangs_is_replaced_and_its_clients_are_not_left_waiting(here: Host) -> None:
    edge = here.start(workers=1)
    edge.wait_ready()
    (hanging,) = edge.workers()
    with socket.create_connection(("127.0.0.1", here.port), timeout=20) as client:
        asked = b"GET /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer key-of-acme\r\n\r\n"
        client.sendall(asked)
        answer = HTTPResponse(client)
        answer.begin()
        assert (answer.status, bool(answer.read())) == (200, True)
        begun = time.monotonic()
        os.kill(hanging, signal.SIGSTOP)
        client.sendall(asked)
        with pytest.raises(ConnectionResetError):
            client.recv(65536)
        assert SILENCE - 1.2 < time.monotonic() - begun < SILENCE * 3
    edge.wait_ready()
    assert edge.request() == 200
    assert hanging not in edge.workers()
    (died,) = edge.logged("worker died")
    assert (died["pid"], died["why"]) == (hanging, f"it said nothing for {SILENCE} s")
    assert b"edge_worker_restarts_total 1.0\n" in edge.get("/metrics")[1]
    assert edge.end() == 0


def test_a_supervisor_that_stood_still_kills_nobody(here: Host) -> None:
    edge = here.start(workers=2)
    edge.wait_ready()
    workers = edge.workers()
    for _ in range(2):
        stopped = time.monotonic()
        os.kill(edge.process.pid, signal.SIGSTOP)
        until(
            lambda stopped=stopped: edge.request() != 200 or time.monotonic() - stopped > SILENCE * 2, "it stands still"
        )
        os.kill(edge.process.pid, signal.SIGCONT)
        woken = time.monotonic()
        until(lambda woken=woken: edge.get("/readyz")[0] == 200 and time.monotonic() - woken > SILENCE, "it goes on")
        assert edge.workers() == workers
    assert edge.logged("worker hangs, killed") == []
    assert edge.end() == 0
