"""The end of a command: its last text, and its exit code.

0: success; 1: failure (`check` has problems, the admin listener does not answer); 2: arguments or a configuration that
cannot be used, with nothing started.
"""

from typing import NoReturn

import typer


def fail(why: str, code: int) -> NoReturn:
    """Print the reason on standard error, and exit with this code."""
    typer.echo(why, err=True)
    raise typer.Exit(code)


def finish(result: tuple[int, str]) -> None:
    """Print the text of a result, and exit with its code unless that is 0."""
    code, text = result
    if code:
        fail(text, code)
    typer.echo(text)
