"""Commands about alerts of a collector: `alerts ls | replay`."""

from typing import Annotated

import typer

from edgeproxy.base.json_values import JsonValue
from edgeproxy.cli.api import Api, Authorities, Json, Url, show, table

COLUMNS = ("id", "at", "severity", "kind", "customer", "title", "deliveries")
SHOWN = 100
"""Alerts that are listed unless more are asked for."""


def alerts_ls(
    customer: Annotated[str | None, typer.Option(help="Only those about this customer.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only those of this kind.")] = None,
    severity: Annotated[str | None, typer.Option(help="page, warn or info.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those with a delivery that is due, sent or dead.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = SHOWN,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """List alerts, the latest first."""
    api = Api(collector, ca)
    name = None if customer is None else api.resolve_customer(customer)
    query = {"customer": name, "kind": kind, "severity": severity, "state": state, "limit": str(limit)}
    rows = api.fetch_list("/v1/alerts", "alerts", **query)
    if not as_json:
        for row in rows:
            row["deliveries"] = _format_deliveries(row.get("deliveries"))
    table(rows, COLUMNS, as_json)


def _format_deliveries(deliveries: JsonValue) -> str:
    members = deliveries if isinstance(deliveries, list) else []
    return ", ".join(f"{member['channel']} {member['state']}" for member in members)


def alerts_replay(
    alert: Annotated[int, typer.Argument(metavar="ID", min=1, help="The alert's id, as `alerts ls` has it.")],
    channel: Annotated[str | None, typer.Option(help="On this channel; else on all that have given it up.")] = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Send an alert again."""
    show(Api(collector, ca).call("POST", f"/v1/alerts/{alert}/replay", query={"channel": channel}), as_json)
