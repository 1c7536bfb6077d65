"""The functions of all commands, by the words that call them."""

import importlib
from collections.abc import Callable

from edgeproxy.cli import commands


def find_functions() -> dict[str, Callable[..., None]]:
    """Return the function of each command, by the words that call it."""
    places = dict(commands.COMMANDS)
    for group, (_, functions) in commands.GROUPS.items():
        places |= {f"{group} {name}": place for name, place in functions.items()}
    found = {}
    for words, place in places.items():
        module, _, name = place.partition(".")
        found[words] = getattr(importlib.import_module(f"edgeproxy.cli.{module}"), name)
    return found
