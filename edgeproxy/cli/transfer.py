"""Commands that move customers, keys and flags between files and the collector's database: `import`, `export`."""

import sys
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail, say


def bring(
    config: CollectorFile,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
) -> None:
    """Bring the customers, keys and flags of FILE into the database that it names; all else there stays.

    May be said again: what is there already is not changed. A collector may run meanwhile.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector import offline

    say(offline.imported(settings, dry=dry))


def take(config: CollectorFile) -> None:
    """Print the customers, keys and flags of the database as a file that edge.yaml and collector.yaml can include."""
    settings = load_collector_file(config)
    from edgeproxy.collector import offline

    code, said = offline.exported(settings, sys.stdout)
    if code:
        fail(said, code)
