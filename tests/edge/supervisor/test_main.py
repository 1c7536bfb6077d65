"""Whole edges: supervisors and workers as processes, killed and stopped as hosts and operators do it."""

import asyncio
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.edge.quick import load_quick
from edgeproxy.edge.supervisor import main, worker_template
from edgeproxy.edge.supervisor.environment import inherit
from edgeproxy.edge.supervisor.systemd import Systemd
from edgeproxy.edge.supervisor.worker_template import WorkerTemplate
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process, kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

Make = Callable[..., Edge]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    served = Upstream(tmp_path_factory.mktemp("upstream"))
    yield served
    served.stop()


@pytest.fixture
def make(tmp_path: Path, upstream: Upstream) -> Iterator[Make]:
    """Make an edge of one worker, which is not started yet. All share their address and their state directory."""
    numbers = itertools.count()
    with ExitStack() as ends:
        (port,) = ends.enter_context(closing(Ports(1))).numbers
        shared = {"listen": f"{HOST}:{port}", "state": str(tmp_path / "state"), "workers": 1, **people(acme="free")}

        def make(**settings: Any) -> Edge:
            edge = Edge(tmp_path / f"edge{next(numbers)}", upstream.port, **{**shared, **settings})
            edge.port = port
            return ends.enter_context(closing(edge))

        yield make


def killed(edge: Edge) -> set[int]:
    """The workers that are left of an edge whose supervisor is killed now."""
    kill(edge.supervisor.pid)
    return edge.supervisor.family()


def request(edge: Edge, times: int) -> None:
    """So many requests that are answered with 200, each over its own connection."""

    def answered() -> bool:
        try:
            return edge.ask(key=key_of("acme")).status == 200
        except OSError:
            return False

    for _ in range(times):
        until(answered, "a request is answered")


def logged(edge: Edge, event: str) -> list[dict[str, Any]]:
    """The structured log lines of this event."""
    lines = [json.loads(line) for line in edge.output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_orphans_stay_while_a_new_supervisor_cannot_serve(make: Make) -> None:
    first = make(workers=2).start()
    old = set(first.worker_pids())
    assert killed(first) == old
    with socket.create_server((HOST, 0)) as foreign:
        assert make(admin=f"{HOST}:{foreign.getsockname()[1]}").begin().wait(20) == 2
    assert first.supervisor.family() == old
    request(first, 3)


def test_older_supervisor_takes_over_from_a_killed_newer_one(make: Make) -> None:
    first, second = make().start(), make().start()
    assert len(killed(second)) == 1
    until(lambda: not second.supervisor.family(), "the orphan has left, for the first serves again")
    request(first, 5)


def test_sighup_reloads_and_logs_the_result(make: Make) -> None:
    edge = make().start()
    edge.supervisor.send_signal(signal.SIGHUP)
    until(lambda: logged(edge, "configuration is what serves already"), "the edge logs that nothing changed")
    edge.write(security_headers=True, region="elsewhere")
    edge.supervisor.send_signal(signal.SIGHUP)
    (said,) = until(lambda: logged(edge, "configuration reloaded"), "the edge logs the reload")
    assert said["needs_restart"] == ["region"]
    assert said["sha256"] == edge.status()["config"]["sha256"]
    good = edge.file.read_text()
    edge.file.write_text(good + "drain: 5\nx: 1\n")
    edge.supervisor.send_signal(signal.SIGHUP)
    (said,) = until(
        lambda: logged(edge, "configuration refused; the one before serves on"), "the edge logs the refusal"
    )
    last = len(good.splitlines()) + 2
    places = [f"{edge.file}:{last - 1}: drain", f"{edge.file}:{last}: x"]
    assert [error.rpartition(": ")[0] for error in said["errors"]] == places
    request(edge, 1)


def test_sighup_to_both_of_two_supervisors_reloads_each(make: Make) -> None:
    edges = [make().start() for _ in range(2)]
    for edge in edges:
        edge.write(security_headers=True)
        edge.supervisor.send_signal(signal.SIGHUP)
    for edge in edges:
        until(lambda edge=edge: logged(edge, "configuration reloaded"), "the edge has reloaded")
        request(edge, 3)
    assert [edge.usage()["acme"] for edge in edges] == [6, 6]


def test_a_reload_that_is_asked_for_while_the_edge_starts_is_not_forgotten(make: Make) -> None:
    edge = make()
    edge.begin()
    until(lambda: logged(edge, "edge starting"), "the edge has started")
    edge.write(security_headers=True)
    edge.supervisor.send_signal(signal.SIGHUP)
    until(edge.ready, "the edge is ready")
    until(lambda: logged(edge, "configuration reloaded"), "the edge has reloaded")
    assert edge.status()["config"]["error"] is None
    request(edge, 3)


def test_a_port_in_use_is_named_and_nothing_is_started(make: Make, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as foreign:
        taken = foreign.getsockname()[1]
        edge = make(admin=f"{HOST}:{taken}")
        assert edge.begin().wait(20) == 2
    assert edge.output == f"edgeproxy: cannot listen on {HOST}:{taken}: Address already in use\n"
    assert not (tmp_path / "state").exists()


def test_edge_exits_with_a_reason_if_no_worker_can_start(make: Make) -> None:
    edges = [make().start() for _ in range(2)]
    third = make()
    assert third.begin().wait(20) == 1
    assert "edgeproxy: no worker could start: " in third.output
    assert "column" in third.output
    request(edges[0], 5)


def test_an_address_of_an_edge_with_another_state_directory_is_refused(make: Make, tmp_path: Path) -> None:
    edge = make().start()
    other = make(state=str(tmp_path / "other"))
    assert other.begin().wait(20) == 2
    assert other.output == (
        f"edgeproxy: cannot listen on {HOST}:{edge.port}: "
        f"another process does, which is no edge on the state directory {tmp_path / 'other'}\n"
    )
    request(edge, 5)


def test_orphans_of_the_older_supervisor_serve_after_the_newer_one_ends(make: Make) -> None:
    first = make().start()
    workers = set(first.worker_pids())
    make().start().end()
    assert killed(first) == workers
    until(lambda: "serving on until another one serves" in first.output, "the orphan logs that it serves on")
    request(first, 5)
    assert first.supervisor.family() == workers


def test_machine_with_unproven_memory_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    # Logs of later tests would go where this one's standard error went, which is gone by then.
    monkeypatch.setattr(main.log, "configure", lambda process: None)
    settings = load_quick("http://127.0.0.1:1", listen="127.0.0.1:0", admin=None, rate=None, state=tmp_path / "state")
    assert main.run(lambda: settings, None) == 2
    assert "this machine is riscv64" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


# ---- workers as copies of a template


SECRET = "f3b1c0ffee" * 4


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """An edge started as operators start it, with a secret in its environment."""
    monkeypatch.setattr(Process, "forks", False)
    upstream = Upstream(tmp_path)
    with closing(Edge(tmp_path, upstream.port)) as edge:
        edge.environ = {"A_SECRET": SECRET}
        yield edge.start()
    upstream.stop()


def roles(edge: Edge) -> dict[int, str]:
    """Return the title of each process of an edge, as `ps` shows it."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in edge.supervisor.family()}
    return {pid: line.split(b"\0")[-1].decode() for pid, line in lines.items()}


def template_of(edge: Edge) -> int:
    (pid,) = edge.template_pids()
    return pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def knows(pid: int, text: str) -> bool:
    """Return whether the writable memory of a process contains the text."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            addresses, rights, *rest = line.split()
            if not rights.startswith("rw") or rest[-1].startswith(("[vv", "anon_inode")):
                continue
            start, end = (int(part, 16) for part in addresses.split("-"))
            memory.seek(start)
            try:
                if text.encode() in memory.read(end - start):
                    return True
            except OSError:  # This page of a table's file does not exist yet.
                continue
    return False


def replaced(edge: Edge, pid: int) -> int:
    """Kill a worker and return its successor."""
    others = {*edge.worker_pids()} - {pid}
    kill(pid)

    def news() -> set[int]:
        workers = {*edge.worker_pids()}
        return workers - others - {pid} if len(workers) == 2 else set()

    (new,) = until(news, "another worker serves")
    return new


def test_forked_workers_are_children_of_the_supervisor_without_its_secrets(edge: Edge) -> None:
    supervisor, template, workers = edge.supervisor.pid, template_of(edge), edge.worker_pids()
    assert {pid: role for pid, role in roles(edge).items() if pid != supervisor} == {
        template: "template",
        **dict.fromkeys(workers, "worker"),
    }
    assert [parent_of(pid) for pid in (template, *workers)] == [supervisor] * 3
    assert knows(supervisor, SECRET), "the supervisor needs the secret for ${A_SECRET}"
    for pid in (template, *workers):
        assert not knows(pid, SECRET)
        assert b"A_SECRET" not in Path(f"/proc/{pid}/environ").read_bytes()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        has = {name: bool(int(status[name], 16) & 1 << signal.SIGHUP - 1) for name in ("SigBlk", "SigIgn")}
        assert has == {"SigBlk": False, "SigIgn": True}, "a SIGHUP to all processes ends none of them"
        assert len({*resource.prlimit(pid, resource.RLIMIT_NOFILE)}) == 1
    # A replacement is forked too. Without the template, it is executed.
    forked = replaced(edge, edge.worker_pids()[0])
    assert roles(edge)[forked] == "worker"
    kill(template_of(edge))
    assert edge.ask().status == 401
    executed = replaced(edge, edge.worker_pids()[0])
    assert b"--channel" in Path(f"/proc/{executed}/cmdline").read_bytes()
    assert edge.output.count("the template of workers is lost") == 1
    assert edge.ask().status == 401


def test_a_killed_supervisor_ends_the_template_but_not_the_workers(edge: Edge) -> None:
    template, workers = template_of(edge), edge.worker_pids()
    kill(edge.supervisor.pid)
    until(lambda: edge.supervisor.family() == {*workers}, "the template has left")
    assert edge.ask().status == 401
    first = edge.supervisor
    edge.start()
    until(
        lambda: not first.family() - edge.supervisor.family() - {*edge.worker_pids()},
        "the processes of the first supervisor have left",
    )
    assert template not in edge.supervisor.family()


def test_worker_template_is_off_without_child_subreaper_support(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        worker_template, "PR_SET_CHILD_SUBREAPER", -1
    )  # An invalid option, because qemu refuses the valid one.
    assert WorkerTemplate.create() is None
    assert capfd.readouterr().err.endswith("started by exec, and take more memory: prctl: Invalid argument\n")


def fails(requests: socket.socket) -> WorkerTemplate:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    return WorkerTemplate(requests, child.pid)


def is_reaped(child: int) -> bool:
    """Return whether a child has ended and is no zombie."""
    try:
        os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


@pytest.mark.parametrize("answer", [None, b"0x", b""])
def test_a_template_that_does_not_answer_is_killed(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        monkeypatch.setattr(worker_template, "ANSWER_SECONDS_MAX", 0.1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            template = fails(ours)
            pid = template.pid
            assert pid is not None
            if answer is not None:
                theirs.send(answer) if answer else theirs.shutdown(socket.SHUT_RDWR)
            assert await template.fork_worker([theirs.fileno()]) is None
            assert template.pid is None
            assert is_reaped(pid)
            assert await template.fork_worker([theirs.fileno()]) is None

    asyncio.run(play())


def test_a_template_is_given_up_when_the_wait_for_its_answer_is_cancelled() -> None:
    async def play() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            template = fails(ours)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(template.fork_worker([theirs.fileno()]), 0.05)
            assert template.pid is None
            assert await template.fork_worker([theirs.fileno()]) is None

    asyncio.run(play())


def test_an_executed_worker_gets_a_reduced_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = {"PATH": "/bin", "EDGEPROXY_PURE": "1", "MALLOC_TRIM_THRESHOLD_": "1"}
    assert inherit({**inherited, "A_SECRET": SECRET, "EDGEPROXY_TEMPLATE": "0"}) == inherited


# ---- systemd


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
