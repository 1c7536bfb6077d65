"""Commands that serve until a signal ends them: `edge`, `quick`, `collector`, `regions`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.files import (
    BeaconFile,
    CollectorFile,
    ConfigFile,
    load_collector_file,
    load_regions_file,
)
from edgeproxy.cli.outcome import fail


def edge(
    config: ConfigFile,
    watch: Annotated[bool, typer.Option("--watch", help="Reload whenever FILE, or what it includes, changes.")] = False,
) -> None:
    """Serve the edge of FILE until SIGTERM or SIGINT. SIGHUP reloads it."""
    from edgeproxy.cli.edge_command import serve

    raise typer.Exit(serve(config, watch))


def quick(
    to: Annotated[str, typer.Option(metavar="URL", help="The upstream: http://HOST:PORT, or https://.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")] = "127.0.0.1:8080",
    admin: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The admin listener; none unless set.")] = None,
    rate: Annotated[str | None, typer.Option(metavar="RATE", help="A limit for each address, such as 100/s.")] = None,
) -> None:
    """Serve one upstream without a configuration, open to all, until SIGTERM or SIGINT. Counts end with it."""
    from tempfile import TemporaryDirectory

    from edgeproxy.config.edge.quick import load_quick
    from edgeproxy.config.problems import ConfigError

    with TemporaryDirectory(prefix="edgeproxy-quick-", ignore_cleanup_errors=True) as state:
        try:
            settings = load_quick(to, listen=listen, admin=admin, rate=rate, state=Path(state))
        except ConfigError as error:
            fail(str(error), 2)
        from edgeproxy.edge.supervisor.main import run

        code = run(lambda: settings, None)
    raise typer.Exit(code)


def collector(config: CollectorFile) -> None:
    """Serve the collector of FILE, which keeps the counts of edges, until SIGTERM or SIGINT. SIGHUP reloads it."""
    import signal

    # Until the collector handles it: no change of FILE from here on is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    settings = load_collector_file(config)
    from edgeproxy.collector.main import run

    raise typer.Exit(run(settings, config))


def regions(config: BeaconFile) -> None:
    """Serve the beacon of FILE until SIGTERM or SIGINT. Clients report latencies of regions to it."""
    settings = load_regions_file(config)
    from edgeproxy.regions.beacon.main import run

    raise typer.Exit(run(settings))
