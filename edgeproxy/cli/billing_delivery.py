"""Commands about charging: `billing rollout`, `stop`, `resume`, `replay`, `webhooks`, `reconciliation`, `report`."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from edgeproxy.cli.api import Api, Authorities, Json, Url, show, table

Why = Annotated[str, typer.Option(help="The reason, for the audit log.")]


def rollout(
    percent: Annotated[int, typer.Argument(metavar="PERCENT", min=0, max=100, help="The percentage to charge.")],
    why: Why,
    force: Annotated[str | None, typer.Option(metavar="REASON", help="Take the step though gates are closed.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Charge this percentage of customers; a step up is refused while a gate is closed or has no figure."""
    body: dict[str, Any] = {"percent": percent, "why": why}
    told = Api(collector, ca).call("PUT", "/billing/rollout", body if force is None else {**body, "force": force})
    if as_json:
        show(told, as_json)
        return
    for gate in told["gates"]:
        typer.echo(f"{'open' if gate['is_open'] else 'CLOSED':7} {gate['name']}: {gate['figure']} ({gate['required']})")
    typer.echo(f"mode {told['mode']}, {told['percent']} % of customers are charged")


def stop(
    why: Why,
    message: Annotated[str | None, typer.Option(help="What customers are told in the meantime.")] = None,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Charge nobody from now on: service goes on, and what is used in the meantime is never charged."""
    body = {"charging": False, "why": why}
    told = Api(collector, ca).call("PUT", "/billing/rollout", body if message is None else {**body, "message": message})
    typer.echo(f"nobody is charged; customers are told: {told['message']}")


def resume(why: Why, collector: Url = None, ca: Authorities = None) -> None:
    """Charge customers again, from the next minute on."""
    Api(collector, ca).call("PUT", "/billing/rollout", {"charging": True, "why": why})
    typer.echo("customers are charged again")


def replay(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Its id, such as evt_1Nx….")],
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Apply an event from Stripe once more: one that is kept here, or else one that Stripe still has."""
    Api(collector, ca).call("POST", f"/billing/webhooks/{quote(event, safe='')}/replay")
    typer.echo(f"{event} will be applied once more")


def webhooks(
    state: Annotated[str | None, typer.Option(help="waiting, applied, ignored, other_mode or dead.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """List events from Stripe, the latest first."""
    told = Api(collector, ca).call("GET", "/billing/webhooks", state=state)
    table(told["events"], ("id", "type", "object", "state", "attempts", "received", "error"), as_json)


def report(
    period: Annotated[str | None, typer.Option(metavar="DAY", help="The day on which a period begins.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Show what all usage would cost by one rating of it, beside what was charged."""
    from edgeproxy.collector.billing.rating.money import format_usd

    told = Api(collector, ca).call("GET", "/billing/report", period=period)
    if as_json:
        show(told, as_json)
        return
    for one in told["invoices"]:
        real = "not charged" if one["real"] is None else format_usd(one["real"])
        mark = "" if one["real"] in (None, one["shadow"]) else "  DIFFERS"
        typer.echo(f"{one['period']} {one['customer']:24} {format_usd(one['shadow']):>14} {real:>14}{mark}")
    typer.echo(f"{told['rated']} invoices come to {format_usd(told['shadow'])}")
    said = (
        f"{told['charged']} of them, {format_usd(told['shadow_of_charged'])}, were charged {format_usd(told['real'])}"
    )
    typer.echo(f"{said}; {told['different']} differ")


def reconciliation(
    kind: Annotated[str | None, typer.Option(help="A, B, C, D or E.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Show how far books that should agree differ, and what to do about it."""
    told = Api(collector, ca).call("GET", "/billing/reconciliation", kind=kind)["reconciliations"]
    if as_json:
        show({"reconciliations": told}, as_json)
        return
    for one in told:
        said = f"{one['at']} {one['kind']} {one['about']}: {one['different']} of {one['units']} units differ"
        typer.echo(f"{said} ({one['level']})")
        for row in one["rows"]:
            numbers = f"ours {row['ours']}, theirs {row['theirs']}"
            typer.echo(f"    {row['customer']} {row['meter']}: {numbers}; {row['action']}")
