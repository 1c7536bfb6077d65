"""Commands about money: `billing rate`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.config.collector.catalog import Plan

MONTH_SECONDS = 30 * 86400
"""Seconds of the period that is rated: all of it is one segment, so that its length does not matter."""


def rate(
    plan: Annotated[str, typer.Argument(metavar="VERSION", help="Such as standard@1.")],
    usage: Annotated[list[str] | None, typer.Argument(metavar="METER[:VALUE]=QUANTITY", help="What was used.")] = None,
    config: Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The plans: plans.yaml.")] = Path(
        "config/plans.yaml"
    ),
    currency: Annotated[
        str | None, typer.Option(metavar="CODE", help="Such as jpy; by default that of the file.")
    ] = None,
) -> None:
    """Print what a month of this usage costs under a plan, line by line."""
    from edgeproxy.collector.billing.rating.money import format_amount
    from edgeproxy.collector.billing.rating.rater import Segment, Span, UsageKey, rate_segments, sum_amounts
    from edgeproxy.config.collector.load import load_plans
    from edgeproxy.config.problems import ConfigError

    try:
        plans = load_plans(config, os.environ).plans
    except ConfigError as error:
        fail(str(error), 2)
    if plan not in plans:
        fail(f"{config} has no plan {plan}; it has {', '.join(plans)}", 2)
    try:
        terms = plans[plan] if currency is None else plans[plan].in_currency(currency)
    except ValueError:
        fail(f"{plan} has no prices in {currency}; it has some in {', '.join(plans[plan].currencies)}", 2)
    month = Span(0, MONTH_SECONDS)
    quantities = {UsageKey(month, *key): quantity for key, quantity in _parse_usage(usage or (), plan, terms).items()}
    lines = rate_segments([Segment(plan, terms, month, month)], quantities, settled={month})
    for line in lines:
        name = line.meter or line.kind
        name += f" {line.value}" if line.value else ""
        units = "" if line.unit_price is None else f"{line.quantity:,} {'included' if not line.tier else 'billed'}"
        typer.echo(f"{name:28} {units:>28} {format_amount(line.amount, terms.currency):>14}")
    typer.echo(f"{'total':28} {'':28} {format_amount(sum_amounts(lines), terms.currency):>14}")


def _parse_usage(arguments: Iterable[str], plan: str, terms: "Plan") -> dict[tuple[str, str], int]:
    """Return quantities by meter and dimension value; exits with 2 where an argument is none."""
    quantities = {}
    for argument in arguments:
        name, _, quantity = argument.rpartition("=")  # A value may have one too.
        meter, _, value = name.partition(":")
        if not quantity.lstrip("-").isdecimal() or len(quantity) > 16:
            fail(f"{argument!r} is not METER=QUANTITY, a whole number of at most 15 digits", 2)
        if meter not in terms.meters:
            fail(f"{plan} does not bill {meter}; it bills {', '.join(terms.meters) or 'no meter'}", 2)
        quantities[meter, value] = int(quantity)
    return quantities
