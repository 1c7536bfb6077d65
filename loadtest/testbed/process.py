"""A process that the tests started, with all that it started in turn, whatever sessions those chose."""

import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.testbed import fork_server
from loadtest.testbed.waiting import SLOWNESS

MARK = "EDGEPROXY_TEST_FAMILY"
"""A variable of the environment by which the descendants of one process are known, orphans among them."""

ENVIRON_MAX = 1 << 20
"""Bytes of a process's environment that are looked at."""

ROOT = Path(__file__).parent.parent.parent
"""The project's root, where every process starts."""

LEASH = f"import ctypes, os, sys; ctypes.CDLL(None).prctl(1, {signal.SIGTERM:d}); os.execv(sys.argv[1], sys.argv[1:])"
"""A command that becomes another one, to which the kernel sends a SIGTERM should its parent die (PR_SET_PDEATHSIG)."""


class Process:
    """A child in a session of its own, which ends with the test run even where that is killed."""

    forks = False
    """Whether it may be a copy of a fork server: so it is where tests run, not where something is measured."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        family: str | None = None,
        environ: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
        fork: bool | None = None,
    ) -> None:
        """Start it: by exec, or where it is a command of edgeproxy, and `fork` does not forbid it, as a copy."""
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
                    cwd=ROOT,
                    pass_fds=keep,
                    start_new_session=True,
                )
        self.pid = self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._child.poll() is None

    @property
    def output(self) -> str:
        """What it has written so far, on both of its outputs."""
        return self.log.read_text(errors="replace")

    def family(self) -> set[int]:
        """The processes of its family that live, itself included."""
        return family(self.family_name)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens where it has ended."""
        self._child.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Its exit code, minus the number of the signal that killed it; raises TimeoutExpired. SLOWNESS counts."""
        return self._child.wait(seconds * SLOWNESS)

    def wait_after(self, number: signal.Signals, seconds: float) -> int:
        """Send it a signal; its exit code."""
        self.send_signal(number)
        return self.wait(seconds)

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, and its exit code. What then is left of the family is killed, as nobody else would end it."""
        try:
            return self.wait_after(signal.SIGTERM, seconds)
        finally:
            self.kill_all()
            self.wait(seconds)

    def kill_all(self) -> None:
        """kill -9 of its family: itself first, as it would replace the others, and what they started meanwhile."""
        if self.running:
            kill(self.pid)
        while members := self.family():
            for pid in members:
                kill(pid)


def family(name: str) -> set[int]:
    """The living processes whose environment has this mark; those that ended and wait to be reaped are not."""
    mark = f"{MARK}={name}".encode()
    found = set()
    for entry in os.listdir("/proc"):  # Not pathlib, and no file of Python's: this goes through all there are.
        if not entry.isdigit():
            continue
        try:
            environ = os.open(f"/proc/{entry}/environ", os.O_RDONLY)
            try:
                if mark in os.read(environ, ENVIRON_MAX).split(b"\0"):
                    found.add(int(entry))
            finally:
                os.close(environ)
        except OSError:  # gone, or somebody else's
            continue
    return found


def kill(pid: int, *, seconds: float = 10.0) -> None:
    """kill -9, and wait until it is gone; nothing happens where it is gone already."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], seconds)[0], f"{pid} is still there"
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def memory_of(pids: list[int]) -> int:
    """Bytes of resident memory, of all of them."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096
