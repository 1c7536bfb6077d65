"""A process started by the demonstration, with all of its descendants."""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TAIL_BYTES = 4096
"""The last bytes of a log that may contain its last line."""
LISTEN = "0A"
"""The state of listening sockets in /proc/net/tcp."""
END_SECONDS = 35.0
"""Seconds for a process to end by itself: more than config/edge.yaml gives open requests."""


class Process:
    """A child in a process group of its own, so that a Ctrl-C at the terminal reaches only its parent.

    Should the demonstration itself be killed, the kernel sends the child a SIGTERM.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        keep: Sequence[int] = (),
    ) -> None:
        """Start `command`, with `environ` beside our own environment.

        It reads `stdin`, and its output goes to the file `log`, made anew; descriptors in `keep` stay open in it.
        """
        self.name = name
        self._command = ["setpriv", "--pdeathsig", "TERM", *map(str, command)]
        self._log = log
        self._environ = {**os.environ, **(environ or {})}
        self._stdin = stdin
        self._keep = tuple(keep)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        # The collector prints a sign-in link for an operator into it.
        self._output = os.fdopen(os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a+b")
        self._start()

    def _start(self) -> None:
        self._child = subprocess.Popen(
            self._command,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            pass_fds=self._keep,
            process_group=0,
        )
        self.started_at = time.monotonic()
        self._pidfd = os.pidfd_open(self._child.pid)
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(self._stdin)
            self._child.stdin.close()
        except BrokenPipeError:  # It is dead already, which its exit code tells better.
            pass

    def restart(self) -> None:
        """Start the command again, after the child has died."""
        self._reap()
        self._start()

    def end(self, patience: float = END_SECONDS) -> None:
        """SIGTERM to the child; once it is dead, or after `patience` seconds, SIGKILL to its whole group."""
        # Not Popen.terminate: that waits for a child that is dead, and then its number is no longer its group's.
        signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
        try:
            find_dead([self], patience)
        finally:
            self._reap()

    def _reap(self) -> None:
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._pidfd)

    def describe_end(self) -> str:
        """Return how a dead child ended, and the last line of its output, as one line."""
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        assert ended is not None, "it is dead, so this does not wait"
        how = "with exit code" if ended.si_code == os.CLD_EXITED else "by signal"
        size = os.fstat(self._output.fileno()).st_size
        tail = os.pread(self._output.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace").strip()
        last = tail.splitlines()[-1].strip() if tail else "it wrote nothing"
        return f"{self.name} ended {how} {ended.si_status}: {last} (all that it wrote: {self._log})"

    def fileno(self) -> int:
        """Return a descriptor that is readable once the child is dead."""
        return self._pidfd


def find_dead(processes: Sequence[Process], patience: float | None = None) -> Process | None:
    """Return the first of these that is dead, as soon as one is; None if none is within `patience` seconds."""
    dead, _, _ = select.select(processes, [], [], patience)
    return dead[0] if dead else None


def measure_memory() -> int:
    """Return the bytes of memory of this process and its descendants, with shared pages divided among their users."""
    return sum(_read_pss(pid) for pid in [os.getpid(), *_list_descendants(os.getpid())])


def has_listener(port: int) -> bool:
    """Return whether a descendant of this process listens on a port, and not some other process."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port}
    return any(not sockets.isdisjoint(_list_files(pid)) for pid in _list_descendants(os.getpid()))


def _list_files(pid: int) -> Iterator[str]:
    try:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            yield str(file.readlink())
    except OSError:  # It, or the file, has gone meanwhile.
        return


def _list_descendants(pid: int) -> Iterator[int]:
    try:
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:  # It has ended meanwhile.
        return
    for child in children:
        yield child
        yield from _list_descendants(child)


def _read_pss(pid: int) -> int:
    """Return the proportional set size of a process, in bytes; 0 if it has ended."""
    try:
        pss = re.search(r"^Pss: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(pss[1]) * 1024 if pss else 0
