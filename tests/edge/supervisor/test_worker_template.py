"""Workers forked by a template: their memory, their parent, and their replacement after the template is lost."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.edge.supervisor import worker_template
from edgeproxy.edge.supervisor.environment import build_environment, inherit
from edgeproxy.edge.supervisor.worker_template import WorkerTemplate
from loadtest.testbed.edge import Edge
from loadtest.testbed.process import Process, kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

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
    environ = {"PATH": "/bin", "EDGEPROXY_PURE": "1", "A_SECRET": SECRET, "EDGEPROXY_TEMPLATE": "0"}
    assert inherit(environ) == {"PATH": "/bin", "EDGEPROXY_PURE": "1"}
    assert build_environment({**environ, "MALLOC_TRIM_THRESHOLD_": "1"}) == {
        "PATH": "/bin",
        "EDGEPROXY_PURE": "1",
        "MALLOC_TRIM_THRESHOLD_": "1",
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    }
