"""A process that the demonstration started, with everything that it started in turn."""

import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


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
        output: IO[bytes] | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        """Start `command`; its output goes to `output` or to ours; descriptors in `keep` stay open in it."""
        self.name = name
        self._child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=keep,
            process_group=0,
        )
        self._ending = os.pidfd_open(self._child.pid)

    def end(self, patience: float) -> None:
        """SIGTERM to the child; once it is dead, or after `patience` seconds, SIGKILL to its whole group."""
        self._child.terminate()
        try:
            died([self], patience)
        finally:
            # The child is not yet waited for, so its number still is its group's and nobody else's.
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def fileno(self) -> int:
        """A descriptor that is readable once the child is dead."""
        return self._ending


def died(processes: Sequence[Process], patience: float | None = None) -> Process | None:
    """The first of these that is dead, as soon as one is; None if none is within `patience` seconds."""
    dead, _, _ = select.select(processes, [], [], patience)
    return dead[0] if dead else None
