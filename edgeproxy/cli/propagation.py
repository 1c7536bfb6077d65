"""Waiting until a change of the directory has reached the edges: `keys add --wait`."""

import time

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api
from edgeproxy.cli.outcome import fail

WAIT_SECONDS = 60.0
"""Seconds that edges have."""
PAUSE_SECONDS = 0.1
"""Seconds between two questions."""
NAMED_EDGES = 5
"""Edges that the message of a failure names."""


def wait_for_edges(api: Api) -> None:
    """Return once each edge that fetches the directory from this collector has what was changed before.

    Exits with 1 where one of them has not after WAIT_SECONDS. Edges that follow a hub cannot be asked: a note says so.
    """
    deadline, target = time.monotonic() + WAIT_SECONDS, None
    while True:
        answer = api.call("GET", "/v1/directory/followers")
        if target is None and not answer["pending"]:
            target = answer["version"] or 0
        lacking = [] if target is None else _list_lacking(answer["followers"], target)
        if target is not None and not lacking:
            break
        if time.monotonic() >= deadline:
            names = ", ".join(lacking[:NAMED_EDGES])
            why = f"{len(lacking)} edges do not have it: {names}" if lacking else "no version of the directory has it"
            fail(f"after {WAIT_SECONDS:g} s {why}", 1)
        time.sleep(PAUSE_SECONDS)
    if answer["hub"]:
        typer.echo("edges that follow the hub are not asked; they have it within seconds", err=True)
    elif not answer["followers"]:
        typer.echo("no edge fetches the directory from this collector now", err=True)


def _list_lacking(followers: list[JsonObject], target: int) -> list[str]:
    """List the names of edges whose version is before `target`."""
    return [
        str(follower["name"])
        for follower in followers
        if not isinstance(follower["version"], int) or follower["version"] < target
    ]
