"""A process of the bench: pinned to a core, with its output in a file, and ended with the bench."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_STOP_SECONDS = 5.0


def pinned(core: int, argv: Sequence[str | Path]) -> list[str]:
    """Return the command `argv` on one core; it gets SIGTERM when the process that starts it dies (util-linux)."""
    return ["taskset", "-c", str(core), "setpriv", "--pdeathsig", "TERM", "--", *map(str, argv)]


def output(core: int, argv: Sequence[str | Path], *, seconds: float, env: dict[str, str] | None = None) -> str:
    """Return the output of a short command. Raises RuntimeError with its last output if it fails or takes too long."""
    try:
        result = subprocess.run(
            pinned(core, argv),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{Path(argv[0]).name} took more than {seconds:.0f} s") from error
    if result.returncode:
        raise RuntimeError(f"{Path(argv[0]).name} failed: {_last_lines(result.stderr or result.stdout)}")
    return result.stdout


class Child:
    """A child that ends with the bench, even if the bench is killed."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        core: int,
        log: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C is the bench's to handle, which then ends its children in order.
            self._process = subprocess.Popen(
                pinned(core, argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return the last lines of its output, to show why it failed."""
        return _last_lines(self.log.read_text(errors="replace"))

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Return once `ready()`; raises RuntimeError when the process ends first or the deadline passes."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running():
                raise RuntimeError(f"ended with {self._process.returncode} before it {what}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {what} within {seconds:.0f} s: {self.last_words()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Send SIGTERM, and after some seconds SIGKILL to the remaining processes."""
        descendants = tree(self.pid)[1:]
        if self.running():
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Descendants that outlived the parent are still in our child's session.
        for pid in descendants:
            if _session(pid) == self.pid:
                os.kill(pid, signal.SIGKILL)


def tree(pid: int) -> list[int]:
    """Return `pid` and all its descendants, parents first; empty if it has ended."""
    found = []
    pending = [pid]
    while pending:
        parent = pending.pop(0)
        try:
            for thread in Path(f"/proc/{parent}/task").iterdir():
                pending += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(parent)
    return found


def _last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])[:500] or "no output"


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
