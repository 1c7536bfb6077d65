"""Run public test suites directly, behind nginx and behind the edge, and tell which tests fail behind the edge alone.

    python -m loadtest.suites express=DIR [ws=DIR …] [--behind direct,nginx,edge] [--out DIR]

DIR is a checkout of the project with what its tests need: docs/start/compatibility.md says how to get it. Exit code 1:
a test fails behind the edge that passes behind nginx, and is not among the documented differences.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from loadtest.suites.differences import DIFFERENCES
from loadtest.suites.stand import WAYS, Slot, slots
from loadtest.suites.suite import FAILED, PASSED, SUITES, Outcomes, outcomes

SECONDS_MAX = 900.0
"""For one suite, in one way."""


def main() -> int:
    options = asked()
    folder = Path(options.out or tempfile.mkdtemp(prefix="suites-"))
    undocumented = 0
    for name, checkout in options.suites:
        seen = {way: run(name, checkout, way, folder, options.slots) for way in options.behind}
        (folder / f"{name}.json").write_text(json.dumps(seen, indent=1))
        counts = ", ".join(f"{way} {sum(state == PASSED for state in found.values())}" for way, found in seen.items())
        print(f"{name}: passed {counts}", flush=True)
        for test in worse(seen):
            why = next((why for begin, why in DIFFERENCES.get(name, ()) if begin in test), None)
            undocumented += why is None
            print(f"  {'documented' if why else 'NOT DOCUMENTED'}: {test}{f' ({why})' if why else ''}", flush=True)
    print(f"details in {folder}")
    return 1 if undocumented else 0


def run(name: str, checkout: Path, way: str, folder: Path, count: int) -> Outcomes:
    """A suite's outcomes in this way."""
    suite, own = SUITES[name], folder / name / way
    places = slots(count, suite.fixed)
    if way == "direct":
        places = [Slot(slot.public, slot.public) for slot in places[0]], []
    own.mkdir(parents=True, exist_ok=True)
    with WAYS[way](own / "stand", [*places[0], *places[1]]):
        return outcomes(suite, checkout, own, places, SECONDS_MAX)


def worse(seen: dict[str, Outcomes]) -> list[str]:
    """The tests that fail, or do not end, behind the edge, and pass behind nginx."""
    if "edge" not in seen or "nginx" not in seen:
        return []
    return [
        test for test, state in seen["nginx"].items() if state == PASSED and seen["edge"].get(test, FAILED) == FAILED
    ]


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.suites")
    parser.add_argument("suites", nargs="+", metavar="SUITE=DIR", type=pair)
    parser.add_argument("--behind", type=lambda text: text.split(","), default=list(WAYS))
    parser.add_argument("--slots", type=int, default=12)
    parser.add_argument("--out", help="a folder for outcomes and logs; by default a temporary one")
    return parser.parse_args()


def pair(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in SUITES or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"SUITE=DIR, SUITE one of {', '.join(SUITES)}")
    return name, Path(folder).resolve()


if __name__ == "__main__":
    sys.exit(main())
