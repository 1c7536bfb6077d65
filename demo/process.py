"""A process that the demonstration started, with everything that it started in turn."""

import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL = 4096
"""Bytes at the end of a log in which its last line is looked for."""


class Process:
    """A child in a process group of its own, so that a Ctrl-C at the terminal reaches only who started it.

    Should the demonstration itself be killed, the kernel sends the child a SIGTERM.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environ: Mapping[str, str],
        log: Path,
        keep: Sequence[int] = (),
    ) -> None:
        """Start `command`; its output goes to the file `log`, made anew; descriptors in `keep` stay open in it."""
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)  # Another demonstration may be writing to the one that was there.
        # The collector prints a link there by which an operator signs in.
        self._written = os.fdopen(os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w+b")
        self._child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._written,
            stderr=self._written,
            pass_fds=keep,
            process_group=0,
        )
        self._ending = os.pidfd_open(self._child.pid)

    def end(self, patience: float) -> None:
        """SIGTERM to the child; once it is dead, or after `patience` seconds, SIGKILL to its whole group."""
        # Not Popen.terminate: that waits for a child that is dead, and then its number is no longer its group's.
        signal.pidfd_send_signal(self._ending, signal.SIGTERM)
        try:
            died([self], patience)
        finally:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def obituary(self) -> str:
        """How a dead child ended, and the last line that it wrote, as one line."""
        ended = os.waitid(os.P_PIDFD, self._ending, os.WEXITED | os.WNOWAIT)
        assert ended is not None, "it is dead, so this does not wait"
        how = "with exit code" if ended.si_code == os.CLD_EXITED else "by signal"
        size = os.fstat(self._written.fileno()).st_size
        written = os.pread(self._written.fileno(), TAIL, max(0, size - TAIL)).decode(errors="replace").strip()
        last = written.splitlines()[-1].strip() if written else "it wrote nothing"
        return f"{self.name} ended {how} {ended.si_status}: {last} (all that it wrote: {self._log})"

    def fileno(self) -> int:
        """A descriptor that is readable once the child is dead."""
        return self._ending


def died(processes: Sequence[Process], patience: float | None = None) -> Process | None:
    """The first of these that is dead, as soon as one is; None if none is within `patience` seconds."""
    dead, _, _ = select.select(processes, [], [], patience)
    return dead[0] if dead else None
