"""A collector that answers however often it is asked, for tests that ask for everything at once."""

import sys

WITHOUT_RATES = "from edgeproxy.collector.api.request_limits import RequestLimits; RequestLimits.wait = lambda *_: 0"
"""Code that lifts the request limits in a collector's process."""
UNLIMITED_COMMAND = (
    sys.executable,
    "-c",
    f"{WITHOUT_RATES}; from edgeproxy.cli import main; main()",
    "collector",
    "-c",
)
"""The command that starts the collector without request limits."""
