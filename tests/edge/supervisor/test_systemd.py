"""Messages to the service manager, over sockets made as systemd makes them."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.edge.supervisor.systemd import Systemd
from loadtest.testbed.edge import Edge
from loadtest.testbed.waiting import until


@pytest.fixture(params=["in a directory", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "in a directory" else f"\0{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.setblocking(False)
        end.bind(name)
        yield end


def environ(manager: socket.socket, **more: str) -> dict[str, str]:
    name = manager.getsockname()
    named = "@" + name[1:].decode() if isinstance(name, bytes) else name
    return {"NOTIFY_SOCKET": named, "PATH": "/bin", **more}


def test_systemd_receives_ready_stopping_and_watchdog(manager: socket.socket) -> None:
    notify = Systemd(environ(manager))
    notify.ready("2 workers serve")
    notify.stopping("draining")
    notify.alive()
    assert manager.recv(1000) == b"READY=1\nSTATUS=2 workers serve"
    assert manager.recv(1000) == b"STOPPING=1\nSTATUS=draining"
    assert manager.recv(1000) == b"WATCHDOG=1"


def test_a_reload_begins_at_a_moment_of_the_monotonic_clock(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    Systemd(environ(manager)).reloading()
    first, moment, status = manager.recv(1000).decode().split("\n")
    assert (first, status) == ("RELOADING=1", "STATUS=reloading")
    name, _, value = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_systemd_receives_only_changed_statuses(manager: socket.socket) -> None:
    notify = Systemd(environ(manager))
    notify.ready("2 of 2 workers serve")
    for status in ("2 of 2 workers serve", "1 of 2 workers serves", "1 of 2 workers serves", "2 of 2 workers serve"):
        notify.status(status)
    assert manager.recv(1000).startswith(b"READY=1")
    assert manager.recv(1000) == b"STATUS=1 of 2 workers serves"
    assert manager.recv(1000) == b"STATUS=2 of 2 workers serve"
    with pytest.raises(BlockingIOError):
        manager.recv(1000)


def test_systemd_variables_are_removed_from_the_environment(manager: socket.socket) -> None:
    given = environ(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    Systemd(given)
    assert given == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("usec", "pid", "every"),
    [
        ("3000000", "own", 1.5),
        ("3000000", "", 1.5),
        ("3000000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("soon", "", None),
    ],
)
def test_watchdog_interval_is_half_of_the_systemd_timeout(
    usec: str, pid: str, every: float | None, manager: socket.socket
) -> None:
    given = environ(manager, WATCHDOG_USEC=usec, WATCHDOG_PID=str(os.getpid()) if pid == "own" else pid)
    assert Systemd(given).watchdog == every


@pytest.mark.parametrize("named", [None, "", "relative", "/nowhere/at/all"])
def test_systemd_notifications_without_a_listener_do_nothing(named: str | None) -> None:
    notify = Systemd({"WATCHDOG_USEC": "1000000"} | ({} if named is None else {"NOTIFY_SOCKET": named}))
    notify.ready("serving")
    notify.reloading()
    notify.alive()
    if named != "/nowhere/at/all":
        assert notify.watchdog is None


def test_manager_that_does_not_read_blocks_no_notification(manager: socket.socket) -> None:
    notify = Systemd(environ(manager))
    for n in range(2000):
        notify.status(f"{n}")
    assert manager.recv(1000) == b"STATUS=0"


@pytest.mark.parametrize("manager", ["in a directory"], indirect=True)
def test_edge_reports_its_life_cycle_to_systemd(manager: socket.socket, tmp_path: Path) -> None:
    heard: list[str] = []

    def hears(wanted: str) -> bool:
        try:
            while True:
                heard.append(manager.recv(1000).decode())
        except BlockingIOError:
            return any(message.startswith(wanted) for message in heard)

    with closing(Edge(tmp_path / "edge", 9, workers=1)) as edge:
        edge.environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"}
        edge.begin()
        until(lambda: hears("READY=1"), "systemd learns that the edge is ready")
        assert "READY=1\nSTATUS=serving: 1 of 1 workers ready" in heard
        assert edge.ready()
        (worker,) = edge.worker_pids()
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()
        heard.clear()
        until(lambda: hears("WATCHDOG=1"), "the watchdog is notified")
        edge.supervisor.send_signal(signal.SIGHUP)
        until(lambda: hears("RELOADING=1\nMONOTONIC_USEC="), "systemd learns of the reload")
        until(lambda: hears("READY=1"), "systemd learns that the edge is ready again")
        edge.end()
        assert hears("STOPPING=1\nSTATUS=draining: 1 of 1 workers ready")
