"""Commands about alerts of a collector: `alerts ls | replay`."""

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.endpoint_commands import Rows, argument, build_command, option

SHOWN = 100
"""Alerts that are listed unless more are asked for."""


def _format_deliveries(alert: JsonObject) -> str:
    deliveries = alert.get("deliveries")
    members = deliveries if isinstance(deliveries, list) else []
    return ", ".join(f"{member['channel']} {member['state']}" for member in members)


alerts_ls = build_command(
    "List alerts, the latest first.",
    "GET",
    "/v1/alerts",
    option("customer", "Only those about this customer."),
    option("kind", "Only those of this kind."),
    option("severity", "page, warn or info."),
    option("state", "Only those with a delivery that is due, sent or dead."),
    option("limit", "How many at most.", kind=int, default=SHOWN, min=1, max=1000),
    output=Rows(
        "alerts",
        ("id", "at", "severity", "kind", "customer", "title", "deliveries"),
        cells={"deliveries": _format_deliveries},
    ),
)
alerts_replay = build_command(
    "Send an alert again.",
    "POST",
    "/v1/alerts/{alert}/replay?channel={channel}",
    argument("alert", "The alert's id, as `alerts ls` has it.", int, metavar="ID", min=1),
    option("channel", "On this channel; else on all that have given it up."),
)
