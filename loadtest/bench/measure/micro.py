"""The cost of a limit decision by itself, in the interpreter that is measured and on the proxy's core."""

import json
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.child import output
from loadtest.bench.stage import Stage

_PROGRAM = Path(__file__).with_name("decision.py")
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Decision:
    """`budgeted` is the one for which the design has a budget."""

    what: str
    budgeted: bool
    microseconds: float


def run(stage: Stage) -> list[Decision]:
    """Raises RuntimeError with the last lines of what went wrong."""
    folder = stage.folder / "decisions"
    folder.mkdir()
    argv = [stage.options.python, _PROGRAM, folder]
    messages = output(stage.options.proxy_core, argv, seconds=60, env={"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests'}"})
    return [Decision(**load) for load in json.loads(messages)]
