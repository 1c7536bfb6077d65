"""The command `stripe-sandbox`."""

from enum import StrEnum
from typing import Annotated

import typer

from edgeproxy.cli.api import read_token
from edgeproxy.cli.outcome import fail


class Rates(StrEnum):
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
    rates: Annotated[Rates, typer.Option(help="The rate limits of Stripe's live or test mode, or none.")] = Rates.test,
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
    from edgeproxy.config.addresses import AN_ADDRESS, is_loopback, split_address
    from edgeproxy.config.collector.billing import SECRETS_VARIABLE
    from edgeproxy.config.units import read_duration

    address = split_address(listen)
    if address is None:
        fail(f"--listen: {listen!r} is not an address with a port, {AN_ADDRESS}", 2)
    if not is_loopback(address.host):
        fail(f"--listen: {listen} is not a loopback address; whoever reaches a sandbox may change everything", 2)
    try:
        seconds = 0.0 if lag == "0" else read_duration(lag)
    except ValueError as error:
        fail(f"--lag: {error}", 2)
    secret = read_token(SECRETS_VARIABLE)
    if webhook is not None and not (webhook.startswith(("http://", "https://")) and secret):
        fail(f"--webhook: takes a URL, and a secret in {SECRETS_VARIABLE}", 2)
    from edgeproxy.stripe_sandbox.main import Address, Webhook, run

    raise typer.Exit(
        run(
            Address(*address),
            state,
            rates.value,
            seconds,
            requires_email=mail is Mail.required,
            takes_any_version=versions is Versions.any,
            webhook=None if webhook is None else Webhook(webhook, secret),
        )
    )
