"""A process that the tests started, with all its descendants, whatever sessions they chose."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import edgeproxy
from loadtest.testbed import fork_server
from loadtest.testbed.waiting import SLOWNESS

MARK = "EDGEPROXY_TEST_FAMILY"
"""An environment variable that marks the descendants of one process, orphans among them."""

ENVIRON_MAX = 1 << 20
"""The most bytes of a process's environment that are read."""

ROOT = Path(__file__).parent.parent.parent
"""The project's root, the working directory of every process."""

PACKAGE = Path(edgeproxy.__file__).parent
"""The package that runs. The compiled build's sources are there, too, and not in ROOT."""

LEASH = f"import ctypes, os, sys; ctypes.CDLL(None).prctl(1, {signal.SIGTERM:d}); os.execv(sys.argv[1], sys.argv[1:])"
"""A command that runs another one by exec. The kernel sends it SIGTERM when its parent dies (PR_SET_PDEATHSIG)."""


class Process:
    """A child in a session of its own, which ends with the test run even if that is killed."""

    forks = False
    """The process may be a fork of a fork server: true in tests, false in measurements."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        family: str | None = None,
        environ: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
        fork: bool | None = None,
        cwd: Path = ROOT,
    ) -> None:
        """Start the process by exec, or as a fork if it is a command of edgeproxy and `fork` does not forbid it."""
        self.family_name = family or uuid.uuid4().hex
        self.log = log
        words = [str(each) for each in command]
        told = {**os.environ, **(environ or {}), MARK: self.family_name}
        fork = self.forks if fork is None else fork
        self._child: subprocess.Popen[bytes] | fork_server.Copy
        with log.open("ab") as output, open(os.devnull, "rb") as nothing:
            if fork and fork_server.may_fork(words, told):
                files = {0: nothing.fileno(), 1: output.fileno(), 2: output.fileno()}
                self._child = fork_server.fork(words, told, {**files, **{each: each for each in keep}})
            else:
                self._child = subprocess.Popen(
                    [sys.executable, "-ISc", LEASH, *words],
                    stdin=nothing,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=told,
                    cwd=cwd,
                    pass_fds=keep,
                    start_new_session=True,
                )
        self.pid = self._child.pid

    @property
    def running(self) -> bool:
        """Return whether the process still runs."""
        return self._child.poll() is None

    @property
    def output(self) -> str:
        """Its output so far, from both standard streams."""
        return self.log.read_text(errors="replace")

    def family(self) -> set[int]:
        """Return the pids of its living family, itself included."""
        return family(self.family_name)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing if the process has ended."""
        self._child.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Wait for the end; return the exit code or the negative signal number. Raises TimeoutExpired. SLOWNESS
        counts.
        """
        return self._child.wait(seconds * SLOWNESS)

    def wait_after(self, number: signal.Signals, seconds: float) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.send_signal(number)
        return self.wait(seconds)

    def stop(self, seconds: float = 10.0) -> int:
        """Send SIGTERM and return the exit code. Kills the rest of the family, because no other process would."""
        try:
            return self.wait_after(signal.SIGTERM, seconds)
        finally:
            self.kill_all()
            self.wait(seconds)

    def kill_all(self) -> None:
        """Send SIGKILL to its family: to the process itself first, because it would replace the others."""
        if self.running:
            kill(self.pid)
        while members := self.family():
            for pid in members:
                kill(pid)


def family(name: str) -> set[int]:
    """Return the living processes whose environment has this mark, without zombies."""
    mark = f"{MARK}={name}".encode()
    found = set()
    # Neither pathlib nor Python's file objects: this loop reads all processes, so it must be fast.
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environ = os.open(f"/proc/{entry}/environ", os.O_RDONLY)
            try:
                if mark in os.read(environ, ENVIRON_MAX).split(b"\0"):
                    found.add(int(entry))
            finally:
                os.close(environ)
        except OSError:  # gone, or another user's
            continue
    return found


def kill(pid: int, *, seconds: float = 10.0) -> None:
    """Send SIGKILL and wait for the end. Does nothing if the process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert fork_server.ends_within(handle, seconds), f"{pid} is still there"
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def memory_of(pids: list[int]) -> int:
    """Return the bytes of resident memory of these processes together."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096
