"""The command `demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    check: Annotated[bool, typer.Option("--check", help="Run the printed lines, judge them, and end.")] = False,
    small: Annotated[bool, typer.Option("--small", help="One edge, and no Redis.")] = False,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="What stays between two starts.")] = Path("var/demo"),
) -> None:
    """Serve a company that sells an API, with all around it, on this machine, until SIGTERM or SIGINT."""
    from edgeproxy.demo.main import run

    raise typer.Exit(run(data, check=check, small=small))
