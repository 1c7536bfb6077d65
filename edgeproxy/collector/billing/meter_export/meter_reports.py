"""Stripe's reports on meter events that it took and could not count: their rows are rejected, and somebody hears of it.

A report counts all errors of some minutes and names a few of the events. What it does not name is found by the
reconciliation with Stripe's sums.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import State
from edgeproxy.collector.database.delivery_tables import billing_outbox

NAMED_MAX = 1000


def identifiers(report: Mapping[str, Any]) -> Iterator[str]:
    """The identifiers of the events that a report names."""
    reason = (report.get("data") or {}).get("reason") or {}
    for kind in reason.get("error_types") or ():
        for sample in kind.get("sample_errors") or ():
            name = (sample.get("request") or {}).get("identifier")
            if isinstance(name, str):
                yield name


async def apply(connection: AsyncConnection, object: Mapping[str, Any]) -> None:
    """Write down what a report says."""
    now = now_ms()
    named = sorted(set(identifiers(object)))[:NAMED_MAX]
    summary = str((object.get("data") or {}).get("developer_message_summary") or "no summary")[:300]
    taken = billing_outbox.c.state.in_([State.ACCEPTED, State.UNKNOWN])
    rows = await outbox_rows.select(connection, billing_outbox.c.identifier.in_(named), taken)
    await outbox_rows.change(connection, rows, State.REJECTED, now, summary)
    alert = Alert(
        key=f"billing-meter-errors-{object['id']}",
        kind="billing_meter_errors",
        severity="page",
        title=f"Stripe could not count usage: {summary}",
        details={"event": object["id"], "rejected": [row.identifier for row in rows]},
        at=now / 1000,
    )
    await raise_once(connection, alert)
