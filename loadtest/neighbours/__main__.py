"""`python -m loadtest.neighbours`: measure each neighbour beside each peer, report, judge."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest.neighbours import peers, report
from loadtest.neighbours.attacker import NICER
from loadtest.neighbours.kinds import KINDS
from loadtest.neighbours.measurement import measure
from loadtest.neighbours.options import Options, parse
from loadtest.neighbours.verdict import Goal, Row, misses


def main(argv: Sequence[str]) -> int:
    """0 when every row of edgeproxy holds the goal, 1 when not."""
    options = parse(argv)
    for name, package in peers.missing().items():
        print(f"{name} is not measured: install {package}", file=sys.stderr)
    os.sched_setaffinity(0, {options.cores[1]})
    with contextlib.suppress(PermissionError):
        os.nice(-NICER)  # Above what else runs on the machine; the hostile processes are not.
    goal = Goal().scaled(options.goal)
    rows = _measure(options, goal)
    if options.json is not None:
        options.json.write_text(json.dumps([report.as_json(row, goal) for row in rows], indent=1))
    if options.markdown is not None:
        options.markdown.write_text(report.markdown(rows, goal))
    return int(any(row.peer == "edgeproxy" and misses(row, goal) for row in rows))


def _measure(options: Options, goal: Goal) -> list[Row]:
    rows = []
    print(report.heading(), flush=True)
    with tempfile.TemporaryDirectory(prefix="edgeproxy-neighbours-") as folder:
        for name in options.kinds:
            kind = KINDS[name]
            for peer in options.peers:
                if peer not in kind.peers or peer in peers.missing():
                    continue
                row = measure(peer, kind, options, Path(folder) / f"{name}-{peer}")
                rows.append(row)
                print(report.line(row, goal), flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
