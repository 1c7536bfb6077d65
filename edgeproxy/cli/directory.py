"""Commands about customers and keys for all edges: `directory push`, `directory keygen`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.outcome import fail

NAMES_SHOWN_MAX = 20
"""Names of each kind that `directory push` prints."""


def push(
    config: Annotated[
        Path,
        typer.Option("-c", "--config", metavar="FILE", help="The hub, tiers, customers and keys, as in edge.yaml."),
    ],
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also where more than half of the customers, or keys, would be gone.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The private key that signs, as `directory keygen` writes it."),
    ] = None,
    back: Annotated[
        bool,
        typer.Option("--back", help="Have edges take it in though they know a later version: after the hub lost it."),
    ] = False,
) -> None:
    """Have the hub know the customers and keys of FILE, and no others. Edges follow within seconds."""
    from edgeproxy.config.edge.load import load_customers
    from edgeproxy.config.problems import ConfigError

    try:
        settings = load_customers(config, os.environ)
    except ConfigError as error:
        fail(str(error), 2)
    if not settings.hub.is_shared:
        fail(f"{config} has no hub to push to: write hub: redis://HOST:PORT", 2)
    from edgeproxy.collector.directory import hub_push as pushing
    from edgeproxy.hub.redis import HubUnavailableError
    from edgeproxy.wire.directory_signatures import InvalidSigningKeyError, Signer

    try:
        signer = None if key is None else Signer.load(key)
        done = pushing.run_push(settings, pushing.PushOptions(force, dry, signer, back))
    except InvalidSigningKeyError as error:
        fail(str(error), 2)
    except pushing.PushRejectedError as error:
        fail(f"{settings.hub.name}: {error}", 1)
    except HubUnavailableError as error:
        fail(f"the hub {settings.hub.name} is away: {error}", 1)
    for sign, names in (("+", done.added), ("~", done.changed), ("-", done.removed)):
        for name in names[:NAMES_SHOWN_MAX]:
            typer.echo(f"{sign} {name}")
        if len(names) > NAMES_SHOWN_MAX:
            typer.echo(f"{sign} and {len(names) - NAMES_SHOWN_MAX} more")
    counts = f"{len(done.added)} added, {len(done.changed)} changed, {len(done.removed)} removed"
    there = f"version {done.version}: {format_count(done.customers, 'customer')}, {format_count(done.keys, 'key')}"
    if done.idle:
        typer.echo(f"nothing to do: {there}")
    else:
        typer.echo(f"{'would push' if dry else 'pushed'}: {counts}; {there}")
    if done.refused:
        fail(f"{settings.hub.name}: it would be refused: {done.refused}", 1)


def keygen(file: Annotated[Path, typer.Argument(metavar="FILE", help="The private key is written here.")]) -> None:
    """Make a key that signs the directory: the private one in FILE, for its owner alone; the public one is printed."""
    from edgeproxy.wire import directory_signatures

    try:
        typer.echo(directory_signatures.create_key_file(file))
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", 1)


def back(
    config: Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The collector's configuration.")],
) -> None:
    """Have the publisher sign that what it says next is meant though edges know more: after a restored database."""
    import asyncio

    from edgeproxy.collector.database.database import UnusableDatabaseError
    from edgeproxy.collector.directory.publisher import enqueue_rollback
    from edgeproxy.config.collector.load import load_collector
    from edgeproxy.config.problems import ConfigError

    try:
        asyncio.run(enqueue_rollback(load_collector(config, os.environ)))
    except ConfigError as error:
        fail(str(error), 2)
    except UnusableDatabaseError as error:
        fail(str(error), 2)
    typer.echo("the next version of the directory is signed as going back")
