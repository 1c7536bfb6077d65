"""Commands about charging: `billing rollout`, `stop`, `resume`, `replay`, `webhooks`, `reconciliation`, `report`."""

import typer

from edgeproxy.base.json_values import JsonDocument
from edgeproxy.cli.api import show
from edgeproxy.cli.endpoint_commands import (
    WHY,
    Arguments,
    Rows,
    Sentence,
    argument,
    build_command,
    option,
)

ROLLOUT = "/billing/rollout"


def _print_rollout(status: JsonDocument, arguments: Arguments) -> None:
    if arguments["as_json"]:
        show(status, True)
        return
    for gate in status["gates"]:
        typer.echo(f"{'open' if gate['is_open'] else 'CLOSED':7} {gate['name']}: {gate['figure']} ({gate['required']})")
    charged = f"{status['percent']} % of customers are charged, and the file allows {status['file_percent']} %"
    typer.echo(f"mode {status['mode']}, {charged}")


def _print_report(document: JsonDocument, arguments: Arguments) -> None:
    from edgeproxy.collector.billing.rating.money import format_amount

    if arguments["as_json"]:
        show(document, True)
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


def _print_reconciliations(document: JsonDocument, arguments: Arguments) -> None:
    reconciliations = document["reconciliations"]
    if arguments["as_json"]:
        show({"reconciliations": reconciliations}, True)
        return
    for result in reconciliations:
        subject = f"{result['at']} {result['kind']} {result['about']}"
        typer.echo(f"{subject}: {result['different']} of {result['units']} units differ ({result['level']})")
        for row in result["rows"]:
            numbers = f"ours {row['ours']}, theirs {row['theirs']}"
            typer.echo(f"    {row['customer']} {row['meter']}: {numbers}; {row['action']}")


rollout = build_command(
    "Charge this percentage of customers; a step up is refused while a gate is closed or has no figure.",
    "PUT",
    ROLLOUT,
    argument("percent", "The percentage to charge.", int, min=0, max=100),
    WHY,
    option("force", "Take the step though gates are closed.", metavar="REASON"),
    output=_print_rollout,
)
stop = build_command(
    "Charge nobody from now on: service goes on, and what is used in the meantime is never charged.",
    "PUT",
    ROLLOUT,
    WHY,
    option("message", "What customers are told in the meantime."),
    body={"charging": False},
    output=Sentence("nobody is charged; customers are told: {answer[message]}"),
)
resume = build_command(
    "Charge customers again, from the next minute on.",
    "PUT",
    ROLLOUT,
    WHY,
    body={"charging": True},
    output=Sentence("customers are charged again"),
)
replay = build_command(
    "Apply an event from Stripe once more: one that is kept here, or else one that Stripe still has.",
    "POST",
    "/billing/webhooks/{event}/replay",
    argument("event", "Its id, such as evt_1Nx…."),
    output=Sentence("{event} will be applied once more"),
)
webhooks = build_command(
    "List events from Stripe, the latest first.",
    "GET",
    "/billing/webhooks",
    option("state", "waiting, applied, ignored, other_mode or dead."),
    output=Rows("events", ("id", "type", "object", "state", "attempts", "received", "error")),
)
report = build_command(
    "Show what all usage would cost by one rating of it, beside what was charged.",
    "GET",
    "/billing/report",
    option("period", "The day on which a period begins.", metavar="DAY"),
    output=_print_report,
)
reconciliation = build_command(
    "Show how far books that should agree differ, and what to do about it.",
    "GET",
    "/billing/reconciliation",
    option("kind", "A, B, C, D or E."),
    output=_print_reconciliations,
)
