"""The processor's instructions of an exchange: `python -m loadtest.instructions [SCENARIO …]`, some two minutes each.

The count has a worker's Python code for a request, without system calls and without uvloop, under Valgrind
(cachegrind). The counts do not depend on other load and hardly differ from run to run, so they show the cost of a
change that times are too noisy to show. `scripts/bench` measures microseconds.

`many` stands for scenarios of many customers (loadtest/bench/measure/crowd.py). The name of a scenario lists its
options: `many-100000-zipf-routes100-new-first` has all of them.
`--workers 1,16,64` lays the tables out for so many workers, in turn.

With --history FILE the counts are appended to FILE. The exit status is 1 if a count differs by more than 2 % from the
last run with this Python and build. docs/start/performance.md then needs a line with the reason for the change.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from loadtest.bench.measure import crowd
from loadtest.bench.measure.scripted_http2 import KINDS
from loadtest.bench.scenario import FALLBACK, SCENARIOS, STREAMS
from loadtest.instructions_history import Run, append_run, find_changes, load_history

LOADTEST = Path(__file__).parent
NIGHTLY = ("small", "rich", "vary", "429", "64k", "post10k", "fallback", "http2", "http2-10", "http2-vary")
"""The scenarios that are counted by default."""
FEW, MANY = 500, 2500
"""Exchanges of two runs; the runs differ only by the exchanges in between."""
WORKERS_MAX = 64


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.instructions", description=__doc__)
    known = (*SCENARIOS, *STREAMS, FALLBACK.name, *KINDS)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=f"of {', '.join(known)}, many, many-…")
    parser.add_argument("--workers", default="1", metavar="N,…", help="numbers of workers of the tables (default 1)")
    parser.add_argument(
        "--python",
        type=Path,
        default=sys.executable,
        help="the interpreter, and the edgeproxy that is installed there (default: this one)",
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="append the counts to FILE, and compare them")
    given = parser.parse_args(argv)
    history = [] if given.history is None else load_history(given.history)  # Before minutes of counting.
    python = str(given.python.absolute())
    counts: dict[str, int] = {}
    numbers = [int(number) if number.isdecimal() else 0 for number in given.workers.split(",")]
    if not all(1 <= number <= WORKERS_MAX for number in numbers):
        parser.error(f"--workers: from 1 to {WORKERS_MAX}")
    asked = [
        example for name in given.scenario or NIGHTLY for example in (crowd.EXAMPLES if name == "many" else (name,))
    ]
    for scenario in asked:
        if scenario not in known and crowd.parse_crowd(scenario) is None:
            parser.error(f"{scenario} is none of {', '.join(known)}, many, many-…")
    for scenario, workers in product(asked, numbers):
        name = scenario if workers == 1 else f"{scenario} of {workers}"
        counts[name] = count_per_exchange(python, scenario, workers=workers)
        print(f"{name:10} {counts[name]:9,}", flush=True)
    if given.history is None:
        return 0
    run = Run(ask_git("rev-parse", "HEAD"), datetime.now(UTC).isoformat(timespec="seconds"), *describe(python), counts)
    append_run(given.history, run)
    changes = find_changes(history, run)
    for scenario, ratio in changes.items():
        print(f"{scenario}: {ratio:.3f} of the run before: docs/start/performance.md must say what that buys")
    return 1 if changes else 0


def ask_git(*arguments: str) -> str:
    """Return git's output in this checkout."""
    result = subprocess.run(["git", *arguments], cwd=LOADTEST, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def describe(python: str) -> tuple[str, str]:
    """Return the version and compiler of an interpreter, and the build of its installed edgeproxy."""
    program = (
        "import platform; from edgeproxy.base.build import describe_build\n"
        "print(platform.python_version(), platform.python_compiler(), describe_build(), sep='\\n')"
    )
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([python, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    version, compiler, build = result.stdout.splitlines()
    return f"{version}, {compiler}", build


def count_per_exchange(python: str, scenario: str, sources: Path | None = None, workers: int = 1) -> int:
    """Count the instructions of an exchange. `sources` is a directory with another edgeproxy than the installed one.

    Raises CalledProcessError if this harness does not fit that version.
    """
    if workers > 1 or crowd.parse_crowd(scenario) is not None:
        return count_warm(python, scenario, sources, workers)
    few, many = (instructions(python, scenario, times, sources, workers) for times in (FEW, MANY))
    return (many - few) // (MANY - FEW)


def count_warm(python: str, scenario: str, sources: Path | None, workers: int) -> int:
    """Count the instructions of an exchange after the setup.

    With many customers who have sent requests before, the setup would take too long under cachegrind. With many
    workers, no two runs are equal until all of them have joined.
    """
    watched = ["--tool=callgrind", "--instr-atstart=no", "--vgdb-poll=100", "--callgrind-out-file=/dev/null"]
    many = crowd.parse_crowd(scenario)
    times = MANY if many is None else many.count_requests(MANY)
    return run_watched(python, watched, scenario, times, sources, workers, "--callgrind") // times


def instructions(python: str, scenario: str, times: int, sources: Path | None = None, workers: int = 1) -> int:
    """Return the instructions of the start and of this many exchanges."""
    watched = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    return run_watched(python, watched, scenario, times, sources, workers)


def run_watched(
    python: str, watched: Sequence[str], scenario: str, times: int, sources: Path | None, workers: int, *more: str
) -> int:
    """Run the exchanges under Valgrind with these options, and return the number of counted instructions."""
    with tempfile.TemporaryDirectory() as folder:
        # A directory without edgeproxy, so that the interpreter's installed one is used, compiled or not.
        (Path(folder) / "loadtest").symlink_to(LOADTEST)
        program = [python, "-m", "loadtest.bench.measure.scripted", folder, scenario, str(times), *more]
        command = ["valgrind", *watched, *program, "--workers", str(workers)]
        environ = {**os.environ, "PYTHONHASHSEED": "0"} | ({} if sources is None else {"PYTHONPATH": str(sources)})
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environ, cwd=folder).stderr
    total = re.search(r"I\s+refs:\s+([\d,]+)", output)
    assert total is not None, output
    return int(total[1].replace(",", ""))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
