"""The command line: a module for each group of commands, and one table of all of them.

Each command imports what it needs itself, so that `check` does not wait for the whole edge to load.
"""

from edgeproxy.cli.commands import app, main

__all__ = ["app", "main"]
