"""A long run of a fuzzer: its length, and its allowed growth."""

import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time
from typing import Final

MINUTES: Final = float(os.environ.get("EDGEPROXY_FUZZ_MINUTES") or 30)
"""Minutes of the processor."""

GROWTH_MIB_MAX: Final = 16
"""The allowed growth of the process in MiB after a tenth of the run."""


def fuzz_for_long(seed: int, run_case: Callable[[random.Random], int]) -> None:
    """Run cases until the time is over, print a summary, and check the memory.

    `run_case` returns its number of checks.
    """
    begin, began, cases, things, early = process_time(), monotonic(), 0, 0, 0.0
    while (spent := process_time() - begin) < MINUTES * 60:
        things += run_case(random.Random(f"{seed} long {cases}"))
        cases += 1
        if not early and spent > MINUTES * 6:
            early = measure_memory()
    print(f"seed {seed}: {cases} cases, {things} looked at, {spent:.0f} s of CPU in {monotonic() - began:.0f} s")
    print(f"memory: {early:.1f} MiB after a tenth, {measure_memory():.1f} MiB at the end")
    assert measure_memory() - early < GROWTH_MIB_MAX


def measure_memory() -> float:
    """Measure this process's resident memory, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)
