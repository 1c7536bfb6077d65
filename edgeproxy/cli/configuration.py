"""Commands about configuration files: `check` and `schema`."""

import os
from collections.abc import Mapping, Sized
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.files import ConfigFile
from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.config.collector.settings import CollectorSettings
    from edgeproxy.config.edge.settings import EdgeSettings


class FileKind(StrEnum):
    """Which of the configuration files is meant."""

    EDGE = "edge"
    COLLECTOR = "collector"


def check(config: ConfigFile) -> None:
    """Check FILE and what it includes, and print every problem with its place."""
    import time

    from edgeproxy.config import certificates, file_kinds
    from edgeproxy.config.collector import catalog, regions
    from edgeproxy.config.collector import settings as collector_settings
    from edgeproxy.config.collector.warnings import list_collector_warnings
    from edgeproxy.config.edge import certificates as edge_certificates
    from edgeproxy.config.edge.warnings import list_edge_warnings
    from edgeproxy.config.problems import ConfigError
    from edgeproxy.config.warnings import list_trusted_proxies_warnings

    try:
        settings = file_kinds.check_file(config, os.environ)
    except ConfigError as error:
        fail(str(error), 1)
    if isinstance(settings, catalog.PlansFile):
        typer.echo(f"OK: plans {', '.join(settings.plans)}")
        return
    if isinstance(settings, collector_settings.CollectorSettings):
        pairs = filter(None, (listener.resolve_tls(settings.tls) for listener in settings.listen))
        for worry in certificates.format_expiry_warnings(dict.fromkeys(pairs), time.time()):
            typer.echo(f"warning: the certificate {worry}", err=True)
        for warning in list_collector_warnings(settings):
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(f"OK: {summary_of_collector(settings)}")
        return
    if isinstance(settings, regions.BeaconSettings):
        for warning in list_trusted_proxies_warnings(settings.trusted_proxies):
            typer.echo(f"warning: {warning}", err=True)
        count = format_count(len(settings.regions), "region")
        typer.echo(f"OK: beacon on {settings.listen}: {count}; sha256 {settings.sha256[:12]}")
        return
    for worry in edge_certificates.list_expiry_warnings(settings, time.time()) if settings else ():
        typer.echo(f"warning: the certificate {worry}", err=True)
    for warning in list_edge_warnings(settings) if settings else ():
        typer.echo(f"warning: {warning}", err=True)
    if settings is not None and settings.usage is not None and settings.usage.is_exposed:
        told = f"the token for {settings.usage.collector} can be read by all on the way"
        typer.echo(f"warning: {told}: write https://", err=True)
    if settings is not None and settings.hub.is_exposed:
        told = f"the password for {settings.hub.name} can be read by all on the way"
        instead = settings.hub.url.partition("://")[0].replace("redis", "rediss", 1)
        typer.echo(f"warning: {told}: write {instead}://", err=True)
    if settings is not None and settings.access_log is not None:
        from edgeproxy.edge.proxy.log_file import describe_problem

        file = settings.access_log.file
        # The state directory is made when the edge starts.
        why = None if file.parent == settings.state else describe_problem(file)
        if why is not None:
            typer.echo(f"warning: the access log {file} cannot be written from here: {why}", err=True)
    typer.echo(f"OK: {summary(settings)}" if settings else "OK: a part, which another file has to include")


def schema(
    of: Annotated[FileKind, typer.Argument(metavar="[edge|collector]", help="Of which file.")] = FileKind.EDGE,
) -> None:
    """Print the JSON Schema of edge.yaml, or of collector.yaml, for editors."""
    import json

    from edgeproxy.config.collector.settings import CollectorFile
    from edgeproxy.config.edge.settings import EdgeFile
    from edgeproxy.config.schema import build_schema, remove_links

    root = EdgeFile if of is FileKind.EDGE else CollectorFile
    typer.echo(json.dumps(remove_links(build_schema(f"{of.value}.yaml", root)), indent=2))


def summary(settings: "EdgeSettings") -> str:
    """A configuration in a line."""
    sizes = {
        "route": settings.routes,
        "upstream": settings.upstreams,
        "tier": settings.tiers,
        "customer": settings.customers,
        "key": settings.keys,
    }
    return f"region {settings.region} on {_addresses(settings)}: {_counted(sizes)}; sha256 {settings.sha256[:12]}"


def summary_of_collector(settings: "CollectorSettings") -> str:
    """The collector's configuration in a line, without the password of its database."""
    from edgeproxy.config.units import redact_password

    database = redact_password(settings.database)
    sizes = {"token": settings.tokens, "tier": settings.tiers, "customer": settings.customers}
    return f"collector on {_addresses(settings)}, {database}: {_counted(sizes)}; sha256 {settings.sha256[:12]}"


def _addresses(settings: "EdgeSettings | CollectorSettings") -> str:
    """Where it listens."""
    return ", ".join(str(listener.address) for listener in settings.listen)


def _counted(sizes: Mapping[str, Sized]) -> str:
    """How many there are of each: `2 keys, 1 tier`."""
    return ", ".join(format_count(len(some), name) for name, some in sizes.items())
