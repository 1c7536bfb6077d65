"""`python -m loadtest.neighbours`: measure each neighbour beside each peer, report, judge."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from loadtest.bench import machine
from loadtest.neighbours import materials, peers, report
from loadtest.neighbours.attacker import NICER
from loadtest.neighbours.kinds import KINDS
from loadtest.neighbours.measurement import Bench, measure
from loadtest.neighbours.options import Options, parse
from loadtest.neighbours.verdict import Goal, Row, misses

_NAMESPACE = "EDGEPROXY_NEIGHBOURS_NAMESPACE"
"""Set in the process that runs in a network namespace of its own."""
_IN_NAMESPACE = 'ip link set lo up && ip -6 route add local fd00:64::/64 dev lo && exec "$@"'


def main(argv: Sequence[str]) -> int:
    """0 when every row of edgeproxy holds the goal, 1 when not, 130 when interrupted."""
    options = parse(argv)
    if options.from_64 and _NAMESPACE not in os.environ:
        command = [
            "unshare",
            "--net",
            "--",
            "sh",
            "-c",
            _IN_NAMESPACE,
            "sh",
            sys.executable,
            "-m",
            "loadtest.neighbours",
        ]
        return subprocess.run([*command, *argv], env={**os.environ, _NAMESPACE: "1"}, check=False).returncode
    for absent in peers.missing():
        print(f"{absent} is not measured: it is not installed", file=sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    os.sched_setaffinity(0, {options.cores[1]})
    with contextlib.suppress(PermissionError):
        os.nice(-NICER)  # Above what else runs on the machine; the hostile processes are not.
    goal = Goal().scaled(options.goal)
    given = shlex.join(("python", "-m", "loadtest.neighbours", *argv))
    rows: list[Row] = []
    print(report.heading(), flush=True)
    try:
        for row in _measure(options):
            rows.append(row)
            print(report.line(row, goal), flush=True)
            # After each row: a run takes half an hour, and may be interrupted.
            if options.json is not None:
                options.json.write_text(json.dumps([report.as_json(row, goal) for row in rows], indent=1))
            if options.markdown is not None:
                options.markdown.write_text(report.page(rows, goal, machine.this(), options, given))
    except KeyboardInterrupt:
        return 130
    return int(any(row.peer == "edgeproxy" and misses(row, goal) for row in rows))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(options: Options) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="edgeproxy-neighbours-") as folder:
        bench = Bench(options, materials.create(Path(folder) / "certificates"))
        for name in options.kinds:
            kind = KINDS[name]
            for peer in options.peers:
                if peer in kind.peers and peer not in peers.missing():
                    yield measure(peer, kind, bench, Path(folder) / f"{name}-{peer}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
