"""Commands about API keys: `key new`."""

from typing import Annotated

import typer

from edgeproxy.cli.outcome import fail

KEY_PREFIX = "ek_live_"
KEY_CHARACTERS = 40
"""Random letters and digits of a key, 238 bits."""


def new(
    customer: Annotated[str, typer.Option(metavar="NAME", help="Whose key it is, as under customers.")],
) -> None:
    """Make a key: print it, this once, and the line for `keys` with its hash."""
    import hashlib
    import secrets
    import string

    from edgeproxy.config.auth import Auth
    from edgeproxy.config.parsers import A_NAME, NAME

    if not NAME.fullmatch(customer):
        fail(f"--customer: {customer!r} is not a name, {A_NAME}", 2)
    alphabet = string.ascii_letters + string.digits
    secret = KEY_PREFIX + "".join(secrets.choice(alphabet) for _ in range(KEY_CHARACTERS))
    digest = hashlib.sha256(secret.encode()).hexdigest()
    typer.echo("The key, shown only now, and the line for `keys` in edge.yaml:", err=True)
    typer.echo(secret)
    typer.echo(f'  - {{sha256: "{digest}", customer: {customer}}}')
    typer.echo(f"{Auth().ways}, unless `auth` in edge.yaml says otherwise.", err=True)
