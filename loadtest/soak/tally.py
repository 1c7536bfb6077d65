"""Counts that outlive a kill -9 of who counts: a mapped file, of which each word is written by one process."""

import mmap
from pathlib import Path

from loadtest.soak.kinds import KINDS

ODD = "odd"
"""What is counted here must never come: a request whose stamps are not those of its path."""
CELLS = {name: at for at, name in enumerate([*KINDS, ODD])}


class Tally:
    """What one endpoint was sent, and what it gave, by customer."""

    def __init__(self, file: Path) -> None:
        """Go on with what the file counts; it is made where it is missing."""
        size = len(CELLS) * 16
        with file.open("ab") as end:
            end.truncate(max(end.tell(), size))
        with file.open("r+b") as both:
            self._words = memoryview(mmap.mmap(both.fileno(), size)).cast("Q")

    def received(self, name: str) -> int:
        """Requests of this customer that came whole."""
        return self._words[CELLS[name] * 2]

    def given(self, name: str) -> int:
        """Answers that are billed, counted before they are written: never fewer than anybody got."""
        return self._words[CELLS[name] * 2 + 1]

    def total(self) -> int:
        """Requests that came whole, of all customers."""
        return sum(self._words[0::2])

    def receive(self, name: str) -> None:
        """One request more."""
        self._words[CELLS.get(name, CELLS[ODD]) * 2] += 1

    def give(self, name: str) -> None:
        """One answer more."""
        self._words[CELLS.get(name, CELLS[ODD]) * 2 + 1] += 1
