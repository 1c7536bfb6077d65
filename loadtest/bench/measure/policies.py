"""The cost of each kind of policy, in the measured interpreter and on the proxy's core."""

import json
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.child import output
from loadtest.bench.stage import Stage

_PROGRAM = Path(__file__).with_name("kinds.py")
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Policy:
    """CPU in µs for one request, from the check to the settlement.

    `alone`: no other worker counts in these rows. `turns`: another worker counts between each two requests.
    `refused`: a refusal with its text. `new_cell`: the first request of a new cell, and the other worker has counted
    in all cells. `stranger`: the first request of a subject, which creates its rows. None if the kind has no such
    case.
    """

    what: str
    alone: float
    turns: float
    refused: float | None
    new_cell: float | None
    stranger: float


def run(stage: Stage) -> list[Policy]:
    """Measure all kinds. Raises RuntimeError with the last lines of a failed program."""
    folder = stage.folder / "policies"
    folder.mkdir()
    path = {"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests'}"}
    messages = output(stage.options.proxy_core, [stage.options.python, _PROGRAM, folder], seconds=120, env=path)
    return [Policy(**load) for load in json.loads(messages)]
