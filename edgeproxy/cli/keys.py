"""Commands about API keys: `key add`."""

from typing import Annotated

import typer

from edgeproxy.cli.outcome import fail


def add(
    customer: Annotated[str, typer.Option(metavar="NAME", help="Whose key it is, as under customers.")],
) -> None:
    """Create a key: print it, this once, and the line for `keys` with its hash."""
    import hashlib

    from edgeproxy.config.edge.auth import Auth
    from edgeproxy.config.key_form import generate_key
    from edgeproxy.config.parsers import A_NAME, NAME

    if not NAME.fullmatch(customer):
        fail(f"--customer: {customer!r} is not a name, {A_NAME}", 2)
    secret = generate_key()
    digest = hashlib.sha256(secret.encode()).hexdigest()
    typer.echo("The key, shown only now, and the line for `keys` in edge.yaml:", err=True)
    typer.echo(secret)
    typer.echo(f'  - {{sha256: "{digest}", customer: {customer}}}')
    typer.echo(f"{Auth().key_instructions}, unless `auth` in edge.yaml says otherwise.", err=True)
