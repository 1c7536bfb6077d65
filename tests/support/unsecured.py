"""`edgeproxy` without row-level security: `python -m tests.support.unsecured collector -c FILE`.

A measurement beside it shows the cost of row-level security.
"""

from edgeproxy import cli
from edgeproxy.collector.database import row_security


async def leave(_: object) -> str:
    """Put nothing in force."""
    return "it is left off, to compare"


if __name__ == "__main__":
    row_security.enforce = leave
    cli.app()
