"""The check of the printed demonstration: it opens each page, and runs each line of the tour in one shell."""

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from edgeproxy.demo.screen import Row
from edgeproxy.demo.shell import Shell
from edgeproxy.demo.tour import Stop
from edgeproxy.demo.web import send

RETRY_SECONDS = 0.5
"""Seconds between two attempts at a line with a delayed effect."""
PAGE_SECONDS = 60.0
"""Seconds for a page. The first request for the API reference builds it, which takes long while all processes start."""


def check_pages(rows: Sequence[Row]) -> bool:
    """Open each page and print which do not answer; return whether all do."""
    broken = [row for row in rows if row.page is not None and not _answers(row.page)]
    for row in broken:
        print(f"FAIL  {row.name}: {row.page} does not answer 200", flush=True)
    return not broken


def _answers(url: str) -> bool:
    try:
        return send(url, seconds=PAGE_SECONDS).status == 200
    except (OSError, ValueError):  # ValueError: it is no URL.
        return False


def check_tour(tour: Sequence[Stop], environment: Path, folder: Path) -> bool:
    """Run each line of the tour and print the result; return whether all results are as expected."""
    good = True
    with Shell(folder) as shell:
        shell.run(f"source {shlex.quote(str(environment))}")
        for stop in tour:
            begun = time.monotonic()
            while True:
                output = shell.run(stop.line)
                fault = judge_output(stop, output)
                if fault is None or time.monotonic() > begun + stop.within:
                    break
                time.sleep(RETRY_SECONDS)
            took = time.monotonic() - begun
            print(f"{'ok  ' if fault is None else 'FAIL'}  {stop.shows} ({took:.1f} s)", flush=True)
            for figures in re.findall(stop.figures, output, re.MULTILINE) if stop.figures else ():
                print(f"      {figures}", flush=True)
            if fault is not None:
                good = False
                print(f"      {fault}\n      $ {stop.line}\n{output}{shell.errors}", flush=True)
    return good


def judge_output(stop: Stop, output: str) -> str | None:
    """Return the error in the output of a line, or None."""
    try:
        return stop.judge(output)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return f"unreadable: {error!r}"
