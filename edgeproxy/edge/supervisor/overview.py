"""`GET /status` and `GET /limits/CUSTOMER` rendered as text for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from edgeproxy.base.plural import format_count

MIB = 1 << 20

StatusObject = Mapping[str, Any]
"""A JSON object of an edge's answer, as decoded."""


def render_overview(status: StatusObject) -> str:
    """Render the edge and its configuration, then tables of workers, upstreams, and rows in use.

    Raises LookupError or TypeError if `status` is not a status of an edge.
    """
    parts = [_format_edge(status)]
    if status["workers"]:
        parts.append(format_table(WORKERS, map(_worker_row, status["workers"])))
    if status["upstreams"]:
        parts.append(
            format_table(UPSTREAMS, (row for item in status["upstreams"].items() for row in _upstream_rows(*item)))
        )
    parts.append(format_table(TABLES, (_table_row(name, rows) for name, rows in status["tables"].items())))
    return "\n\n".join("\n".join(part) for part in parts)


def _format_edge(status: StatusObject) -> list[str]:
    config, hub, usage = status["config"], status["hub"], status["usage"]
    build = f", {status['build']}" if "build" in status else ""  # An older edge does not report it.
    lines = [
        f"edge    {status['region']}, {status['phase']}, edgeproxy {status['version']}{build}",
        f"config  {config['sha256'][:12]}, loaded {format_moment(config['loaded_at'])}",
    ]
    if config["error"] is not None:
        lines.append(
            f"        its files have changed and are not served, since {format_moment(config['error']['since'])}:"
        )
        lines += [f"        {error}" for error in config["error"]["errors"]]
    if config["needs_restart"]:
        lines.append(f"        waits for a restart: {', '.join(config['needs_restart'])}")
    lines.append(f"hub     {hub['url']}, {hub['state']}")
    if "why" in hub:
        lines.append(f"        {hub['why']}")
    lines += [
        f"        its node {node['node']} is away: {node['why']}" for node in hub.get("nodes", ()) if "why" in node
    ]
    return [*lines, *_format_directory(status["directory"]), *_format_usage(usage)]


def _format_directory(directory: StatusObject | None) -> Iterator[str]:
    """Yield lines on the customer directory, if one is configured, and on its problems."""
    if directory is None:
        return
    number, age = directory["version"], directory["age_s"]
    if number is None:
        yield "keys    no directory yet"
    else:
        counts = f"{format_count(directory['customers'], 'customer')}, {format_count(directory['keys'], 'key')}"
        since = format_duration(round(age))
        yield f"keys    version {number} of the directory: {counts}, known to be the newest {since} ago"
    if "why" in directory:
        yield f"        not followed: {directory['why']}"
    if directory.get("refused"):
        yield "        customers, tiers and keys stay as they were; if others are meant, after a restore or with a new"
        yield "        database, `edgeproxy directory back`, or `directory push --back`, signs that"
    if directory["in_files"]:
        yield f"        {directory['in_files']} of them are in the files too, which count"
    for tier, count in directory["unknown_tiers"].items():
        yield f"        {count} refused: there is no tier {tier} here"


def _format_usage(usage: StatusObject) -> Iterator[str]:
    """Yield lines on unshipped usage and its problems."""
    oldest = f", the oldest for {format_duration(usage['oldest_s'])}" if usage["oldest_s"] else ""
    yield f"usage   {usage['unshipped']} unshipped{oldest}, {usage['spool_bytes']} bytes in the spool"
    by_meter = usage.get("unshipped_by_meter") or {}
    if waiting := [f"{units} {meter}" for meter, units in by_meter.items() if units]:
        yield f"        {', '.join(waiting)}"
    shipping, sealing = usage["shipping"], usage["sealing"]
    if usage["edge"] is not None:
        wait = "waits" if usage["batches"] == 1 else "wait"
        yield f"        {usage['edge']}, batch {usage['watermark']} acknowledged, {usage['batches']} {wait}"
    if shipping["why"]:
        yield f"        shipping is {shipping['state']} since {format_moment(shipping['since'])}: {shipping['why']}"
    if sealing is not None:
        yield f"        not sealed since {format_moment(sealing['since'])}: {sealing['why']}"
    if usage["aside"]:
        yield f"        set aside: {', '.join(usage['aside'])}; see `edgeproxy spool adopt` and `discard`"


WORKERS = ("worker", "pid", "connections", "memory", "descriptors", "since")


def _worker_row(worker: StatusObject) -> tuple[object, ...]:
    memory = f"{worker['resident_bytes'] / MIB:.0f} MiB"
    since = format_moment(worker["started_at"])
    return worker["place"], worker["pid"], worker["connections"], memory, worker["descriptors"], since


UPSTREAMS = ("upstream", "up", "down", "trouble")


def _upstream_rows(name: str, endpoints: Sequence[StatusObject]) -> Iterator[tuple[object, ...]]:
    """Yield a row with the addresses that are up and down and the first problem, then a row for each further
    problem.
    """
    known = [(endpoint["url"], address) for endpoint in endpoints for address in endpoint["addresses"]]
    troubles = [f"{endpoint['url']}: {endpoint['why']}" for endpoint in endpoints if endpoint["why"]]
    troubles += [f"{url} at {address['address']}: {address['why']}" for url, address in known if not address["up"]]
    up = sum(address["up"] for _, address in known)
    yield name, up, len(known) - up, *troubles[:1]
    for trouble in troubles[1:]:
        yield "", "", "", trouble


TABLES = ("table", "rows", "of", "used")


def _table_row(name: str, rows: Mapping[str, int]) -> tuple[object, ...]:
    return name, rows["used"], rows["rows"], f"{rows['used'] / rows['rows']:.0%}"


POLICIES = ("policy", "used", "limit", "left", "reset", "window", "scope", "of", "how")


def render_limits(policies: Iterable[StatusObject]) -> str:
    """Render a table of a customer's policies. Raises LookupError or TypeError if they are not an edge's policies."""
    return "\n".join(format_table(POLICIES, map(_policy_row, policies)))


def _policy_row(policy: StatusObject) -> tuple[object, ...]:
    counts = (policy["used"], policy["limit"], policy["remaining"])
    reset, window = policy["reset_s"], policy["window_s"]
    of = [f"{what} {policy[what]}" for what in ("route", "key") if what in policy]
    if policy["used"] is None:
        of.append("each address")
    how = [policy["algorithm"] + (f" of {policy['burst']}" if "burst" in policy else "")]
    if "cap" in policy:
        how.append(policy["cap"])
    if policy["mode"] != "enforce":
        how.append(policy["mode"])
    if "held_back" in policy:
        how.append(f"{policy['held_back']} held back")
    return (
        policy["name"],
        *("" if count is None else count for count in counts),
        "" if reset is None else format_duration(reset),
        format_duration(window) if window else "at once",
        policy["scope"],
        ", ".join(of),
        ", ".join(how),
    )


UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def format_duration(seconds: float) -> str:
    """Format seconds by their two largest units: `1 min 30 s`."""
    parts = []
    for unit, size in UNITS:
        if seconds >= size:
            parts.append(f"{seconds // size:.0f} {unit}")
            seconds %= size
    if seconds or not parts:
        parts.append(f"{seconds:g} s")
    return " ".join(parts[:2])


def format_table(head: Sequence[str], rows: Iterator[tuple[object, ...]]) -> list[str]:
    """Format lines with aligned columns.

    Columns of numbers, and of values that begin with one, are aligned to the right.
    """
    cells = [tuple(map(str, row)) + ("",) * (len(head) - len(row)) for row in rows]
    right = [all(row[at][:1].isdigit() or not row[at] for row in cells) for at in range(len(head))]
    right[-1] = False  # Nothing follows it.
    widths = [max(len(line[at]) for line in (head, *cells)) for at in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (head, *cells)
    ]


def format_moment(unix: float) -> str:
    """Format Unix seconds in UTC."""
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S} UTC"
