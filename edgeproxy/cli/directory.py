"""Commands about customers and keys for all edges: `directory push`, `directory keygen`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.files import load_collector_file
from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.collector.directory.hub_push import PushResult
    from edgeproxy.config.edge.settings import Pushed

NAMES_SHOWN_MAX = 20
"""Names of each kind that `directory push` prints."""


def push(
    config: Annotated[
        Path,
        typer.Option("-c", "--config", metavar="FILE", help="The hub, tiers, customers and keys, as in edge.yaml."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also where more than half of the customers, or keys, would be gone.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The private key that signs, as `directory keygen` writes it."),
    ] = None,
    rollback: Annotated[
        bool,
        typer.Option("--back", help="Sign a rollback: edges take it though they know a later version."),
    ] = False,
) -> None:
    """Replace the customers and keys in the hub by the ones in FILE. Edges follow within seconds."""
    settings = _load_pushed(config)
    from edgeproxy.collector.directory import hub_push
    from edgeproxy.hub.errors import HubUnavailableError
    from edgeproxy.wire.directory_signatures import InvalidSigningKeyError, Signer

    try:
        signer = None if key is None else Signer.load(key)
        result = hub_push.run_push(settings, hub_push.PushOptions(force, dry_run, signer, rollback))
    except InvalidSigningKeyError as error:
        fail(str(error), 2)
    except hub_push.PushRejectedError as error:
        fail(f"{settings.hub.name}: {error}", 1)
    except HubUnavailableError as error:
        fail(f"the hub {settings.hub.name} is away: {error}", 1)
    _print_push(result, dry_run)
    if result.refused:
        fail(f"{settings.hub.name}: it would be refused: {result.refused}", 1)


def _load_pushed(config: Path) -> "Pushed":
    """Load the customers of a file that names a shared hub; exit with 2 if FILE is invalid or names none."""
    from edgeproxy.config.edge.load import load_customers
    from edgeproxy.config.outgoing import use_outgoing
    from edgeproxy.config.problems import ConfigError

    try:
        settings = load_customers(config, os.environ)
    except ConfigError as error:
        fail(str(error), 2)
    if not settings.hub.is_shared:
        fail(f"{config} has no hub to push to: write hub: redis://HOST:PORT", 2)
    use_outgoing(settings)
    return settings


def _print_push(result: "PushResult", dry_run: bool) -> None:
    """Print the names that were pushed, at most NAMES_SHOWN_MAX of each kind, and their counts."""
    for sign, names in (("+", result.added), ("~", result.changed), ("-", result.removed)):
        for name in names[:NAMES_SHOWN_MAX]:
            typer.echo(f"{sign} {name}")
        if len(names) > NAMES_SHOWN_MAX:
            typer.echo(f"{sign} and {len(names) - NAMES_SHOWN_MAX} more")
    counts = f"{len(result.added)} added, {len(result.changed)} changed, {len(result.removed)} removed"
    sizes = f"{format_count(result.customers, 'customer')}, {format_count(result.keys, 'key')}"
    version = f"version {result.version}: {sizes}"
    if result.idle:
        typer.echo(f"nothing to do: {version}")
    else:
        typer.echo(f"{'would push' if dry_run else 'pushed'}: {counts}; {version}")


def keygen(file: Annotated[Path, typer.Argument(metavar="FILE", help="The private key is written here.")]) -> None:
    """Create a key that signs the directory: the private key in FILE, for its owner alone; prints the public key."""
    from edgeproxy.wire import directory_signatures

    try:
        typer.echo(directory_signatures.create_key_file(file))
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", 1)


def sign_rollback(
    config: Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The collector's configuration.")],
) -> None:
    """Have the publisher sign its next version as a rollback, which edges accept even if they know a later one."""
    import asyncio

    from edgeproxy.collector.database.database import UnusableDatabaseError
    from edgeproxy.collector.directory.publisher import enqueue_rollback

    try:
        asyncio.run(enqueue_rollback(load_collector_file(config)))
    except UnusableDatabaseError as error:
        fail(str(error), 2)
    typer.echo("the next version of the directory is signed as going back")
