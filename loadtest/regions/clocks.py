"""Wrong wall clocks for processes (libfaketime). Their monotonic clocks are right.

`python -m loadtest.regions.clocks MOMENT COMMAND…` runs a command whose clock begins at this moment of UTC, for example
2027-02-28T12:00.
"""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""The library of Debian's package faketime; None if it is not installed."""
SKEWS = {"eu": 0.5, "us": -0.5}
"""Seconds by which these regions' clocks are ahead."""
CLOCKS = "import time; time.sleep(1e-5); print(time.time(), time.monotonic())"
SITE = Path(__file__).with_name("wrong_clock")
"""The code that Python must run first."""


def ahead(seconds: float) -> dict[str, str]:
    """Return the environment of a process whose wall clock is ahead by this much. Raises OSError if that would not
    work.
    """
    if LIBRARY is None:
        raise OSError("there is no libfaketime on this machine")
    environ = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH")))),
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": f"{seconds:+.12g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        # Its fix of waits until a monotonic moment has threads that wait for Python's lock take a processor each.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }
    before = time.time() - time.monotonic()
    command = [sys.executable, "-c", CLOCKS]
    result = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=True, timeout=20)
    wall, monotonic = map(float, result.stdout.split())
    if not abs(wall - monotonic - before - seconds) < 0.1 or not abs(time.monotonic() - monotonic) < 10:
        raise OSError(f"{LIBRARY} does not do what it should: {result.stdout}")
    return environ


if __name__ == "__main__":
    beginning = datetime.fromisoformat(sys.argv[1]).replace(tzinfo=UTC).timestamp()
    os.execvpe(sys.argv[2], sys.argv[2:], os.environ | ahead(beginning - time.time()))
