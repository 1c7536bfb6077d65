"""Commands about the functions that edges call in the hub: `hub load`, `hub functions`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.outcome import fail


def load(
    config: Annotated[
        Path,
        typer.Option("-c", "--config", metavar="FILE", help="A file with `hub`, of a user that may load functions."),
    ],
) -> None:
    """Load the functions of this version into the hub, on each primary; edges of other versions keep theirs."""
    import asyncio

    from redis.exceptions import ResponseError

    from edgeproxy.config.edge.load import load_customers
    from edgeproxy.config.hub_settings import has_password
    from edgeproxy.config.outgoing import use_outgoing
    from edgeproxy.config.problems import ConfigError
    from edgeproxy.hub.cluster import list_open_nodes, load_functions
    from edgeproxy.hub.errors import HubUnavailableError
    from edgeproxy.hub.functions import LIBRARY
    from edgeproxy.hub.redis import FunctionsMissingError, Tls, format_error

    try:
        settings = load_customers(config, os.environ)
    except ConfigError as error:
        fail(str(error), 2)
    use_outgoing(settings)
    hub = settings.hub
    if not hub.is_shared:
        fail(f"{config} has no hub: write hub: redis://HOST:PORT", 2)
    tls = Tls.from_settings(hub.tls)
    try:
        nodes = asyncio.run(load_functions(hub.url, tls))
    except FunctionsMissingError:
        fail(f"{hub.name}: this user may not load functions: ACL SETUSER USER +function|load", 1)
    except HubUnavailableError as error:
        fail(f"the hub {hub.name} is away: {error}", 1)
    except ResponseError as error:
        fail(f"{hub.name}: the hub refuses: {format_error(error)}", 1)
    typer.echo(f"{LIBRARY.name} is loaded on {format_count(nodes, 'node')}")
    if has_password(hub.url):
        for node in asyncio.run(list_open_nodes(hub.url, tls)):
            typer.echo(
                f"warning: {node} answers without a password, so rights bound nobody: ACL SETUSER default off", err=True
            )


def functions() -> None:
    """Print the functions of this version, as `redis-cli -x FUNCTION LOAD` takes them."""
    from edgeproxy.hub.functions import LIBRARY

    typer.echo(LIBRARY.text, nl=False)
