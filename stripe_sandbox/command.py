"""The command `stripe-sandbox`."""

import os
import re
import sys
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NoReturn

import typer

SECRETS_VARIABLE = "STRIPE_WEBHOOK_SECRETS"
SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
SECRET = re.compile(r"[\w+/=*-]*", re.ASCII)
DURATION = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,3}})?)({'|'.join(SECONDS)})", re.ASCII)


class RateLimits(StrEnum):
    """The rate limits of the sandbox."""

    off = "off"
    test = "test"
    live = "live"


class Mail(StrEnum):
    """The e-mail of customers to whom invoices are sent."""

    required = "required"
    optional = "optional"


class Versions(StrEnum):
    """The versions of the API that calls may name."""

    own = "own"
    any = "any"


def stripe_sandbox(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="A loopback address.")] = "127.0.0.1:12111",
    state: Annotated[str, typer.Option(metavar="FILE", help="The file that keeps everything.")] = "stripe-sandbox.db",
    rates: Annotated[
        RateLimits, typer.Option(help="The rate limits of Stripe's live or test mode, or none.")
    ] = RateLimits.test,
    mail: Annotated[
        Mail, typer.Option(help="Whether customers to whom invoices are sent need an e-mail, as at Stripe.")
    ] = Mail.required,
    versions: Annotated[
        Versions, typer.Option(help="Whether calls of another version of the API are refused, or taken as of its own.")
    ] = Versions.own,
    lag: Annotated[str, typer.Option(metavar="DURATION", help="How long until a meter event is counted.")] = "1s",
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An endpoint for all events, signed with the STRIPE_WEBHOOK_SECRETS."),
    ] = None,
) -> None:
    """Serve a stand-in for Stripe to test with, without real money, until SIGTERM or SIGINT."""
    from stripe_sandbox.main import Address, Webhook, run

    try:
        host, port = split_address(listen)
        seconds = parse_duration(lag)
        secret = "" if webhook is None else read_secret()
    except ValueError as error:
        fail(str(error))
    if webhook is not None and not (webhook.startswith(("http://", "https://")) and secret):
        fail(f"--webhook: takes a URL, and a secret in {SECRETS_VARIABLE}")
    raise typer.Exit(
        run(
            Address(host, port),
            state,
            rates.value,
            seconds,
            requires_email=mail is Mail.required,
            takes_any_version=versions is Versions.any,
            webhook=None if webhook is None else Webhook(webhook, secret),
        )
    )


def start() -> None:
    """Run the command `stripe-sandbox`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command("stripe-sandbox")(stripe_sandbox)
    app(prog_name="stripe-sandbox")


def split_address(listen: str) -> tuple[str, int]:
    """Split `HOST:PORT` into an address and a port from 0 to 65535.

    Raises ValueError for another form, and for an address that other machines can reach.
    """
    host, _, port = listen.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is None or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"--listen: {listen!r} is not an address with a port, such as 127.0.0.1:12111 or [::1]:12111")
    if not address.is_loopback:
        raise ValueError(
            f"--listen: {listen} is not a loopback address; whoever reaches a sandbox may change everything"
        )
    return host, int(port)


def parse_duration(text: str) -> float:
    """Return the seconds of `0`, `250ms`, `1s`, `2min` or `1h`. Raises ValueError for another form."""
    if text == "0":
        return 0.0
    if (match := DURATION.fullmatch(text)) is None:
        raise ValueError(f"--lag: {text!r} is not a time such as 0, 250ms, 1s or 2min")
    return float(match[1]) * SECONDS[match[2]]


def read_secret() -> str:
    """Return the secret of STRIPE_WEBHOOK_SECRETS, or of the file that STRIPE_WEBHOOK_SECRETS_FILE names, or "".

    Raises ValueError for a file that cannot be read, and for a secret with other characters than `whsec_…` has.
    """
    text = os.environ.get(SECRETS_VARIABLE, "")
    if file := os.environ.get(f"{SECRETS_VARIABLE}_FILE"):
        try:
            text = Path(file).read_text(errors="replace").removesuffix("\n")
        except OSError as error:
            raise ValueError(f"{SECRETS_VARIABLE}_FILE: {file} cannot be read: {error.strerror}") from error
    if not SECRET.fullmatch(text):
        raise ValueError(f"{SECRETS_VARIABLE} has characters that no secret has")
    return text


def fail(message: str) -> NoReturn:
    """Print an error, and exit with 2."""
    print(f"stripe-sandbox: {message}", file=sys.stderr)
    raise typer.Exit(2)
