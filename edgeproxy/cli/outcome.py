"""What a command says, and the exit code that it ends with.

0 well; 1 the answer is no (`check` found problems, nobody answers at the admin listener); 2 arguments or a
configuration that cannot be used, with nothing started.
"""

from typing import NoReturn

import typer


def fail(why: str, code: int) -> NoReturn:
    """Say on standard error why not, and exit."""
    typer.echo(why, err=True)
    raise typer.Exit(code)


def say(said: tuple[int, str]) -> None:
    """Print what came of a command, and exit unless it was well: the code, and what is to be said."""
    code, text = said
    if code:
        fail(text, code)
    typer.echo(text)
