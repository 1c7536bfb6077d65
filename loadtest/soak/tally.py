"""Counts that survive a SIGKILL of the counting process: a mapped file. Only one process writes each word."""

import mmap
from pathlib import Path

from loadtest.soak.kinds import KINDS

ODD = "odd"
"""Counts impossible requests, whose stamps do not match their path."""
CELLS = {name: at for at, name in enumerate([*KINDS, ODD])}


class Tally:
    """One endpoint's received requests and billed answers, by customer."""

    def __init__(self, file: Path) -> None:
        """Continue the counts of a file, or create it."""
        size = len(CELLS) * 16
        with file.open("ab") as end:
            end.truncate(max(end.tell(), size))
        with file.open("r+b") as both:
            self._words = memoryview(mmap.mmap(both.fileno(), size)).cast("Q")

    def received(self, name: str) -> int:
        """Return the whole requests received from this customer."""
        return self._words[CELLS[name] * 2]

    def given(self, name: str) -> int:
        """Return the billed answers. They are counted before they are written, so clients never have more."""
        return self._words[CELLS[name] * 2 + 1]

    def total(self) -> int:
        """Return the whole requests received from all customers."""
        return sum(self._words[0::2])

    def receive(self, name: str) -> None:
        """Count one more request."""
        self._words[CELLS.get(name, CELLS[ODD]) * 2] += 1

    def give(self, name: str) -> None:
        """Count one more answer."""
        self._words[CELLS.get(name, CELLS[ODD]) * 2 + 1] += 1
