"""`python -m tests.fuzz`: fuzz an edge for a while, or repeat some conversations.

python -m tests.fuzz --seed 7 --minutes 30
python -m tests.fuzz --seed 7 --only 1234          repeat one, and print the bytes that each side sent and received
python -m tests.fuzz --seed 7 --only 12,34,56 --times 100
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import uvloop

from tests.fuzz.run import AT_ONCE, Run, edge_before


def until(seconds: float) -> Iterator[int]:
    """Yield numbers from 0 on until the time has passed."""
    end = monotonic() + seconds
    return itertools.takewhile(lambda _: monotonic() < end, itertools.count())


def main() -> int:
    """Run the fuzzer. Return exit code 1 if it found a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--only", help="numbers of conversations, with commas between: only these, and shown")
    parser.add_argument("--times", type=int, default=1, help="how often each of `--only`")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"conversations at once ({AT_ONCE})")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first defect")
    options = parser.parse_args()
    print(f"EDGEPROXY_SEED={options.seed}", flush=True)
    if options.only:
        only = [int(number) for number in options.only.split(",")]
        numbers: Iterator[int] = itertools.chain.from_iterable(itertools.repeat(only, options.times))
    else:
        numbers = until(options.minutes * 60)
    at_once = 1 if options.only and options.times == 1 else options.at_once
    run = Run(options.seed, numbers, at_once=at_once, keep_going=options.keep_going)
    with tempfile.TemporaryDirectory() as folder, closing(edge_before(Path(folder), run.upstream)) as edge:
        show = bool(options.only) and options.times == 1
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run.through(edge, show=show, tell=lambda text: print(text, flush=True)))
        print("\n".join(run.shown))
        print("\n\n".join(run.defects))
        print(run.summary(), flush=True)
    return 1 if run.defects else 0


if __name__ == "__main__":
    sys.exit(main())
