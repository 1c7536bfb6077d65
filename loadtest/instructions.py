"""The processor's instructions of an exchange: `python -m loadtest.instructions [SCENARIO …]`, some two minutes each.

Of all that a worker does for a request in Python, without system calls and without uvloop, under Valgrind (cachegrind).
The counts do not depend on what else the machine does, and hardly differ from run to run, so they show what a change
costs where times would not. Microseconds they are not: `scripts/bench` has these.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest.bench.scenario import SCENARIOS

LOADTEST = Path(__file__).parent
FEW, MANY = 500, 2500
"""Exchanges of two runs; all but the exchanges between is the same in both."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.instructions", description=__doc__)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--python",
        type=Path,
        default=sys.executable,
        help="the interpreter, and the edgeproxy that is installed there (default: this one)",
    )
    given = parser.parse_args(argv)
    for scenario in given.scenario or ("small", "rich", "vary", "429"):
        if scenario not in SCENARIOS:
            parser.error(f"{scenario} is none of {', '.join(SCENARIOS)}")
        few, many = (instructions(str(given.python.absolute()), scenario, times) for times in (FEW, MANY))
        print(f"{scenario:8} {(many - few) // (MANY - FEW):9,}", flush=True)
    return 0


def instructions(python: str, scenario: str, times: int) -> int:
    """How many it takes to start and to let so many exchanges take place."""
    with tempfile.TemporaryDirectory() as folder:
        # Where there is no edgeproxy: the one that is installed for this interpreter is meant, compiled or not.
        (Path(folder) / "loadtest").symlink_to(LOADTEST)
        program = [python, "-m", "loadtest.bench.measure.scripted", folder, scenario, str(times)]
        watched = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", *program]
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        said = subprocess.run(watched, capture_output=True, text=True, check=True, env=environ, cwd=folder).stderr
    total = re.search(r"I\s+refs:\s+([\d,]+)", said)
    assert total is not None, said
    return int(total[1].replace(",", ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
