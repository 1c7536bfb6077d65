"""The command line: a module for each group of commands, and one table of all of them.

Each command imports what it needs itself, so that `check` does not wait for the whole edge to load.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.cli.commands import app, main

__all__ = ["app", "main", "start"]


def start() -> None:
    """Begin as the command `edgeproxy`.

    An edge executes itself first, while nothing is imported yet, without the environment that its workers may not have.
    """
    if sys.argv[1:2] == ["edge"] and not {"-h", "--help"} & {*sys.argv}:
        from edgeproxy.edge.supervisor.environment import reexecute

        reexecute()
        from edgeproxy.cli.edge_command import parse, serve

        if (arguments := parse(sys.argv[2:])) is not None:
            try:
                sys.exit(serve(*arguments))
            except KeyboardInterrupt:  # Before the supervisor handles it. The library says the same.
                sys.exit("Aborted!")
    elif sys.argv[1:2] == ["probe"]:
        from edgeproxy.cli.health_check import check_quickly

        if (state := check_quickly(sys.argv[2:])) is not None:
            print(state)
            return
    from edgeproxy.cli.commands import main

    main()


def __getattr__(name: str) -> object:
    if name not in ("app", "main"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgeproxy.cli import commands

    return getattr(commands, name)
