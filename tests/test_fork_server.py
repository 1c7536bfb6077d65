"""A copy of the fork server equals a new process, for the product and for observers in /proc."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from loadtest.testbed.edge import Edge
from loadtest.testbed.fork_server import COMMAND, Copy
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process, kill
from loadtest.testbed.waiting import until

WAYS = [True, False]


def inside(pid: int) -> dict[str, object]:
    """Return the state of a process in /proc that must not depend on the way it was started."""
    at = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (at / "status").read_text().splitlines())
    stat = (at / "stat").read_text().rpartition(")")[2].split()
    environ = set((at / "environ").read_bytes().rstrip(b"\0").split(b"\0"))
    return {
        "group, session": [stat[2] == str(pid), stat[3] == str(pid)],
        "signals": [status[name] for name in ("SigIgn", "SigCgt")],
        "arguments": re.sub(rb"\d+", b"N", (at / "cmdline").read_bytes().rstrip(b"\0")),
        "environment": {part for part in environ if not part.startswith(b"EDGEPROXY_TEST_FAMILY=")},
        "directory": os.readlink(at / "cwd"),
        "limits": (at / "limits").read_text(),
        "files": sorted(files(at / "fd")),
        "threads": status["Threads"],
    }


def files(at: Path) -> Iterator[str]:
    """Yield the open files of a process without sockets: a supervisor has a socket to the server of its workers, and
    one for each client."""
    for path in at.iterdir():
        with suppress(FileNotFoundError):  # It has just been closed.
            if not (name := os.readlink(path)).startswith("socket:"):
                yield re.sub(r"\d{3,}", "N", name)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_forked_edge_and_its_workers_equal_new_processes(tmp_path: Path) -> None:
    found = []
    with closing(Edge(tmp_path, 1)) as edge:
        edge.write()
        for fork in WAYS:
            process = Process(
                [*edge.command, edge.file],
                tmp_path / "log",
                environ={"SAID": "to it", "EDGEPROXY_TEMPLATE": "0"},
                fork=fork,
            )
            assert isinstance(process._child, Copy) == fork
            until(lambda: not process.running or edge.ready(), "the edge serves")  # noqa: B023
            one, other = edge.worker_pids()
            assert [parent_of(each) for each in (process.pid, one, other)] == [os.getpid(), process.pid, process.pid]
            assert process.family() == {process.pid, one, other}
            found.append([inside(each) for each in (process.pid, one)])
            if fork:  # A new process inherits pytest's blocked signals, which other tests may have changed.
                assert "SigBlk:\t0000000000000000" in Path(f"/proc/{process.pid}/status").read_text()
                (server,) = {*children(process.pid)} - {one, other}
            kill(one)
            until(lambda: len(edge.worker_pids()) == 2 and one not in edge.worker_pids(), "the edge has another worker")  # noqa: B023
            assert process.stop() == 0, process.output
            assert not process.running
        until(lambda: not Path(f"/proc/{server}/fd").exists(), "the server of workers has left with the supervisor")
    assert found[0] == found[1]


@pytest.mark.parametrize("fork", WAYS)
def test_exit_status_of_a_process_is_reported(fork: bool, tmp_path: Path) -> None:
    refused = Process([*COMMAND, "edge", "-c", tmp_path / "nothing.yaml"], tmp_path / "log", fork=fork)
    assert refused.wait(30.0) == 2
    assert "nothing.yaml" in refused.output
    killed = Process([*COMMAND, "quick", "--to", f"http://{HOST}:1"], tmp_path / "log", fork=fork)
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(0.0)
    assert killed.wait_after(signal.SIGKILL, 30.0) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LD_PRELOAD", "TZ"])
def test_startup_environment_variables_require_a_new_process(name: str, tmp_path: Path) -> None:
    process = Process([*COMMAND, "--version"], tmp_path / "log", environ={name: "0"})
    assert isinstance(process._child, subprocess.Popen)
    assert process.wait(30.0) == 0
