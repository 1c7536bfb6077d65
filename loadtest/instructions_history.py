"""The history of instruction counts: a file with a line of JSON for each run, and the changes since the run before."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CHANGE_FRACTION = 0.02
"""A larger change of a count must be explained in docs/start/performance.md."""


class Run(NamedTuple):
    """The counts of one commit by scenario. Only runs of one Python and build are comparable."""

    commit: str
    time: str
    python: str
    build: str
    counts: Mapping[str, int]


def load_history(file: Path) -> list[Run]:
    """Load all runs, oldest first; empty if the file does not exist yet. Raises ValueError if a line is not a run."""
    lines = file.read_text().splitlines() if file.exists() else []
    try:
        return [Run(**json.loads(line)) for line in lines]
    except TypeError as error:
        raise ValueError(f"{file} is not a history: {error}") from error


def append_run(file: Path, run: Run) -> None:
    """Append a run to the file."""
    with file.open("a") as history:
        history.write(json.dumps(run._asdict()) + "\n")


def find_changes(history: Sequence[Run], run: Run) -> dict[str, float]:
    """Return the scenarios whose counts differ by more than CHANGE_FRACTION from the latest comparable ones, as ratios.

    A run need not count all scenarios.
    """
    comparable = [each for each in history if (each.python, each.build) == (run.python, run.build)]
    before = {scenario: count for each in comparable for scenario, count in each.counts.items()}
    return {
        scenario: count / before[scenario]
        for scenario, count in run.counts.items()
        if before.get(scenario) and abs(count - before[scenario]) > CHANGE_FRACTION * before[scenario]
    }
