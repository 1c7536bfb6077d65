"""Databases that all processes of a test run copy, made once and beside the collection of the tests.

`python -m loadtest.testbed.prepared FOLDER` puts them into a folder. Each process of the run would take two seconds of
CPU for them otherwise.
"""

import os
import subprocess
import sys
from pathlib import Path

from loadtest.testbed import postgresql
from loadtest.testbed.tables_ready import LEDGER, PREPARED, SQLITE, make_tables


def prepare(folder: Path) -> "subprocess.Popen[bytes]":
    """Start to prepare the databases in a folder. They are there once the process has ended with code 0."""
    # The server with tables is a copy of the new one, which is in the folder by then.
    return subprocess.Popen([sys.executable, "-m", __name__, folder], env={**os.environ, PREPARED: str(folder)})


if __name__ == "__main__":
    place = Path(sys.argv[1])
    make_tables(f"{SQLITE}{place / LEDGER}")
    if postgresql.programs() is not None:
        postgresql.prepare_data(place)
