"""A Python process of a test's own, which is told lines on its standard input and says lines on its standard output."""

import subprocess
import sys
from typing import Self

PATIENCE = 30.0
"""Seconds for an end that should come at once."""


class Program:
    """`Program("-c", code, …)` or `Program("-m", module, …)`. The process ends with the `with` block."""

    def __init__(self, *arguments: object) -> None:
        command = (sys.executable, *map(str, arguments))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def say(self, line: str) -> None:
        """Tell it this."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def heard(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait(PATIENCE)}"
        return line.strip()

    def end(self, line: str = "end") -> str:
        """Tell it this last, and wait until it has ended well; all that it still said."""
        said, _ = self.process.communicate(f"{line}\n", timeout=PATIENCE)
        assert self.process.returncode == 0
        return said

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)
