"""Commands about configuration files: `check` and `schema`."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.config.collector.settings import CollectorSettings
    from edgeproxy.config.edge.settings import EdgeSettings
    from edgeproxy.config.file_kinds import CheckedSettings
    from edgeproxy.config.problems import Problem


class FileKind(StrEnum):
    """A kind of configuration file."""

    EDGE = "edge"
    COLLECTOR = "collector"


def check(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The configuration, of any kind.")] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", metavar="FILE", help="The same, as other commands take it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, problems included.")] = False,
) -> None:
    """Check FILE and its included files, and print every problem with its place."""
    from edgeproxy.config import file_kinds
    from edgeproxy.config.problems import ConfigError

    if (file is None) == (config is None):
        fail("name one file: edgeproxy check FILE", 2)
    path = file or config
    assert path is not None
    result = CheckResult(str(path))
    try:
        settings = file_kinds.check_file(path, os.environ)
    except ConfigError as error:
        result = result._replace(problems=error.problems)
    else:
        warnings, summary = _summarize(settings)
        result = result._replace(warnings=list(warnings), summary=summary)
    _print_result(result, as_json)


class CheckResult(NamedTuple):
    """The result of a file's check: errors, warnings, and a line about its content if there is no error."""

    file: str
    problems: "Sequence[Problem]" = ()
    warnings: Sequence[str] = ()
    summary: str | None = None


def _print_result(result: CheckResult, as_json: bool) -> None:
    """Print a result, and exit with 1 if it has problems."""
    if as_json:
        import json

        problems = [problem._asdict() for problem in result.problems]
        typer.echo(json.dumps({**result._asdict(), "ok": not problems, "problems": problems}, indent=2))
        if problems:
            raise typer.Exit(1)
        return
    if result.problems:
        fail("\n".join(map(str, result.problems)), 1)
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"OK: {result.summary}")


def _summarize(settings: "CheckedSettings") -> tuple[Iterable[str], str]:
    """Return the warnings about the settings of a file, and a line about its content."""
    from edgeproxy.config.collector.catalog import PlansFile
    from edgeproxy.config.collector.regions import BeaconSettings
    from edgeproxy.config.collector.settings import CollectorSettings
    from edgeproxy.config.warnings import list_trusted_proxies_warnings

    if settings is None:
        return (), "a part, which another file has to include"
    if isinstance(settings, PlansFile):
        return (), f"plans {', '.join(settings.plans)}"
    if isinstance(settings, BeaconSettings):
        count = format_count(len(settings.regions), "region")
        summary = f"beacon on {settings.listen}: {count}; sha256 {settings.sha256[:12]}"
        return list_trusted_proxies_warnings(settings.trusted_proxies), summary
    if isinstance(settings, CollectorSettings):
        return _list_collector_warnings(settings), format_collector_summary(settings)
    return _list_edge_warnings(settings), format_edge_summary(settings)


def _list_collector_warnings(settings: "CollectorSettings") -> Iterator[str]:
    """List the warnings about a collector: about its settings and its certificates."""
    from edgeproxy.config.certificates import format_expiry_warnings
    from edgeproxy.config.collector.warnings import list_collector_warnings

    pairs = filter(None, (listener.resolve_tls(settings.tls) for listener in settings.listen))
    for expiry in format_expiry_warnings(dict.fromkeys(pairs), time.time()):
        yield f"the certificate {expiry}"
    yield from list_collector_warnings(settings)


def _list_edge_warnings(settings: "EdgeSettings") -> Iterator[str]:
    """List the warnings about an edge: about its settings and its files."""
    from edgeproxy.config.edge.certificates import list_expiry_warnings
    from edgeproxy.config.edge.warnings import list_edge_warnings

    for expiry in list_expiry_warnings(settings, time.time()):
        yield f"the certificate {expiry}"
    yield from list_edge_warnings(settings)
    for usage in settings.list_usages().values():
        if usage.is_exposed:
            yield f"the token for {usage.collector} can be read by all on the way: write https://"
    if settings.hub.is_exposed:
        scheme = settings.hub.url.partition("://")[0].replace("redis", "rediss", 1)
        yield f"the password for {settings.hub.name} can be read by all on the way: write {scheme}://"
    if settings.access_log is not None:
        from edgeproxy.edge.proxy.observation.log_file import describe_problem

        file = settings.access_log.file
        # The edge creates the state directory when it starts.
        problem = None if file.parent == settings.state else describe_problem(file)
        if problem is not None:
            yield f"the access log {file} cannot be written from here: {problem}"


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


def format_edge_summary(settings: "EdgeSettings") -> str:
    """Format the configuration of an edge in a line."""
    sizes = {
        "route": settings.routes,
        "upstream": settings.upstreams,
        "tier": settings.tiers,
        "customer": settings.customers,
        "key": settings.keys,
    }
    addresses, counts = _format_addresses(settings), _format_counts(sizes)
    return f"region {settings.region} on {addresses}: {counts}; sha256 {settings.sha256[:12]}"


def format_collector_summary(settings: "CollectorSettings") -> str:
    """Format the configuration of a collector in a line, without the password of its database."""
    from edgeproxy.config.units import redact_password

    database = redact_password(settings.database)
    sizes = {"token": settings.tokens, "tier": settings.tiers, "customer": settings.customers}
    addresses, counts = _format_addresses(settings), _format_counts(sizes)
    return f"collector on {addresses}, {database}: {counts}; sha256 {settings.sha256[:12]}"


def _format_addresses(settings: "EdgeSettings | CollectorSettings") -> str:
    return ", ".join(str(listener.address) for listener in settings.listen)


def _format_counts(sizes: Mapping[str, Sized]) -> str:
    """Format the number of each kind: `2 keys, 1 tier`."""
    return ", ".join(format_count(len(members), name) for name, members in sizes.items())
