"""A copy of the fork server is what a new process would be, to the product and to those who look at it."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fork_server import COMMAND, Copy
from tests.support.ports import HOST, Ports
from tests.support.process import Process
from tests.support.waiting import until

WAYS = [True, False]


def inside(process: Process) -> dict[str, object]:
    """What the kernel says of a process, and what may not differ between the two ways to start it."""
    at = Path(f"/proc/{process.pid}")
    status = dict(line.split(":\t", 1) for line in (at / "status").read_text().splitlines())
    stat = (at / "stat").read_text().rpartition(")")[2].split()
    environ = set((at / "environ").read_bytes().rstrip(b"\0").split(b"\0"))
    return {
        "parent, group, session": [stat[1], stat[2] == str(process.pid), stat[3] == str(process.pid)],
        "signals": [status[name] for name in ("SigIgn", "SigCgt")],
        "arguments": (at / "cmdline").read_bytes().rstrip(b"\0"),
        "environment": {each for each in environ if not each.startswith(b"EDGEPROXY_TEST_FAMILY=")},
        "directory": os.readlink(at / "cwd"),
        "limits": (at / "limits").read_text(),
        "files": sorted(re.sub(r"\d{3,}", "N", os.readlink(each)) for each in (at / "fd").iterdir()),
        "threads": status["Threads"],
    }


@pytest.fixture
def port() -> Iterator[int]:
    ports = Ports(1)
    yield ports.numbers[0]
    ports.close()


def test_it_is_what_a_new_process_is(tmp_path: Path, port: int) -> None:
    log = tmp_path / "log"
    found = []
    for fork in WAYS:
        command = [*COMMAND, "stripe-sandbox", "--listen", f"{HOST}:{port}", "--state", str(tmp_path / "state")]
        process = Process(command, log, environ={"SAID": "to it"}, fork=fork)
        assert isinstance(process._child, Copy) == fork
        until(lambda: "serving" in log.read_text(), "it serves")
        found.append(inside(process))
        if fork:  # A new process blocks what pytest does by now: other tests have run commands in it.
            assert "SigBlk:\t0000000000000000" in Path(f"/proc/{process.pid}/status").read_text()
        assert process.family() == {process.pid}
        assert process.stop() == 0, process.output
        assert not process.running
        log.unlink()
    assert found[0] == found[1]


@pytest.mark.parametrize("fork", WAYS)
def test_its_end_is_told(fork: bool, tmp_path: Path) -> None:
    refused = Process([*COMMAND, "edge", "-c", tmp_path / "nothing.yaml"], tmp_path / "log", fork=fork)
    assert refused.wait(30.0) == 2
    assert "nothing.yaml" in refused.output
    killed = Process([*COMMAND, "quick", "--to", f"http://{HOST}:1"], tmp_path / "log", fork=fork)
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(0.0)
    assert killed.wait_after(signal.SIGKILL, 30.0) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LD_PRELOAD", "TZ"])
def test_what_a_process_reads_before_it_runs_is_told_to_a_new_one(name: str, tmp_path: Path) -> None:
    process = Process([*COMMAND, "--version"], tmp_path / "log", environ={name: "0"})
    assert isinstance(process._child, subprocess.Popen)
    assert process.wait(30.0) == 0
