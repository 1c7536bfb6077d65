"""What each kind of policy costs, in the interpreter that is measured and on the proxy's core."""

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

    `alone`: the only worker that counts in these rows. `turns`: another counts between each two requests. `refused`:
    a refusal with what it says. `new_cell`: the first request of a new cell, in all of which the other worker has
    counted. `stranger`: the first of a subject, with its rows. None where there is nothing of the kind.
    """

    what: str
    alone: float
    turns: float
    refused: float | None
    new_cell: float | None
    stranger: float


def run(stage: Stage) -> list[Policy]:
    """Raises RuntimeError with the last lines of what went wrong."""
    folder = stage.folder / "policies"
    folder.mkdir()
    path = {"PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests'}"}
    said = output(stage.options.proxy_core, [stage.options.python, _PROGRAM, folder], seconds=120, env=path)
    return [Policy(**each) for each in json.loads(said)]
