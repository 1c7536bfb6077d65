"""A shell that is given lines as somebody pastes them, one after the other."""

import os
import secrets
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Self


class ShellError(Exception):
    """A line did not end in time, or ended the shell."""


class Shell:
    """Bash, with what lines leave behind for those after them."""

    def __init__(self, folder: Path) -> None:
        self._errors = os.memfd_create("errors")
        self._bash = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=folder,
            env={**os.environ, "no_proxy": "*"},
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()
        os.close(self._errors)

    @property
    def errors(self) -> str:
        """All that lines have written on standard error."""
        return os.pread(self._errors, 65536, 0).decode(errors="replace")

    def run(self, line: str, seconds: float = 120.0) -> str:
        """Run a line, and return its output; raises ShellError."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = secrets.token_hex(8)
        self._bash.stdin.write(f"{line}\necho {mark}\n".encode())
        self._bash.stdin.flush()
        output = b""
        deadline = time.monotonic() + seconds
        while not output.endswith(f"{mark}\n".encode()):
            ready, _, _ = select.select([self._bash.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._bash.stdout.fileno(), 65536) if ready else b""
            if not part:
                raise ShellError(f"no end within {seconds:.0f} s: {line}\n{output.decode(errors='replace')}")
            output += part
        return output.decode(errors="replace").removesuffix(f"{mark}\n")
