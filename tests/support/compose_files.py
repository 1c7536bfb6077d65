"""The compose files of deploy/, merged as docker compose merges them."""

from typing import Any

import yaml

from loadtest.testbed.process import ROOT

RESET = object()


class Loader(yaml.SafeLoader):
    """Reads the tag that removes a member in an overlay."""


Loader.add_constructor("!reset", lambda loader, node: RESET)


def read_compose(*names: str) -> dict[str, Any]:
    """Return the content of files of deploy/; each is laid over the ones before it.

    A list replaces the one below it, as docker compose does with a command; it appends other lists.
    """
    merged: dict[str, Any] = {}
    for name in names:
        content = yaml.load((ROOT / "deploy" / name).read_text(), Loader)
        merged = merge(merged, content)
    return merged


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another."""
    merged = dict(below)
    for key, value in above.items():
        if value is RESET:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            merged[key] = merge(below[key], value)
        else:
            assert key == "command" or not isinstance(below.get(key), list), f"docker compose appends the list {key}"
            merged[key] = value
    return merged
