"""The age of this process."""

import subprocess
import sys

from edgeproxy.base.process_age import read_process_age

CODE = """
import time
started = time.monotonic()
from edgeproxy.base.process_age import read_process_age
print(read_process_age() - (time.monotonic() - started))
"""


def test_age_counts_from_before_the_first_import() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert -0.02 <= float(done.stdout) < 30.0
    assert read_process_age() > 0.0
