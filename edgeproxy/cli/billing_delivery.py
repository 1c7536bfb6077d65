"""Commands about charging: `billing rollout`, `stop`, `resume`, `replay`, `webhooks`, `reconciliation`, `report`."""

from typing import Annotated
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
    body = {"percent": percent, "why": why, **({} if force is None else {"force": force})}
    status = Api(collector, ca).call("PUT", "/billing/rollout", body)
    if as_json:
        show(status, as_json)
        return
    for gate in status["gates"]:
        typer.echo(f"{'open' if gate['is_open'] else 'CLOSED':7} {gate['name']}: {gate['figure']} ({gate['required']})")
    charged = f"{status['percent']} % of customers are charged, and the file allows {status['file_percent']} %"
    typer.echo(f"mode {status['mode']}, {charged}")


def stop(
    why: Why,
    message: Annotated[str | None, typer.Option(help="What customers are told in the meantime.")] = None,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Charge nobody from now on: service goes on, and what is used in the meantime is never charged."""
    body = {"charging": False, "why": why, **({} if message is None else {"message": message})}
    status = Api(collector, ca).call("PUT", "/billing/rollout", body)
    typer.echo(f"nobody is charged; customers are told: {status['message']}")


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
    events = Api(collector, ca).call("GET", "/billing/webhooks", query={"state": state})["events"]
    table(events, ("id", "type", "object", "state", "attempts", "received", "error"), as_json)


def report(
    period: Annotated[str | None, typer.Option(metavar="DAY", help="The day on which a period begins.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Show what all usage would cost by one rating of it, beside what was charged."""
    from edgeproxy.collector.billing.rating.money import format_amount

    document = Api(collector, ca).call("GET", "/billing/report", query={"period": period})
    if as_json:
        show(document, as_json)
        return
    for invoice in document["invoices"]:
        real, code = invoice["real"], invoice["currency"]
        shadow = format_amount(invoice["shadow"], code)
        charged = "not charged" if real is None else format_amount(real, code)
        mark = "" if real in (None, invoice["shadow"]) else "  DIFFERS"
        typer.echo(f"{invoice['period']} {invoice['customer']:24} {shadow:>14} {charged:>14}{mark}")
    for totals in document["totals"]:
        shadow, rated, real = (
            format_amount(totals[name], totals["currency"]) for name in ("shadow", "shadow_of_charged", "real")
        )
        typer.echo(f"{totals['rated']} invoices come to {shadow}")
        typer.echo(f"{totals['charged']} of them, {rated}, were charged {real}; {totals['different']} differ")
    if not document["totals"]:
        typer.echo("there are no invoices")


def reconciliation(
    kind: Annotated[str | None, typer.Option(help="A, B, C, D or E.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Show how far books that should agree differ, and what to do about it."""
    reconciliations = Api(collector, ca).call("GET", "/billing/reconciliation", query={"kind": kind})["reconciliations"]
    if as_json:
        show({"reconciliations": reconciliations}, as_json)
        return
    for result in reconciliations:
        subject = f"{result['at']} {result['kind']} {result['about']}"
        typer.echo(f"{subject}: {result['different']} of {result['units']} units differ ({result['level']})")
        for row in result["rows"]:
            numbers = f"ours {row['ours']}, theirs {row['theirs']}"
            typer.echo(f"    {row['customer']} {row['meter']}: {numbers}; {row['action']}")
