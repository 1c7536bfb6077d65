"""Alerts, and sending them again."""

import re

from aiohttp import web

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.alerts import reports
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.alert_models import AlertsQuery, AnomaliesQuery, ReplayQuery
from edgeproxy.collector.api.endpoint import Call, Nothing
from edgeproxy.collector.api.responses import Refused, answer
from edgeproxy.collector.database.database import Database

NUMBER = re.compile(r"[1-9][0-9]{0,14}")


class AlertHandlers:
    """Tells of alerts, and has them sent again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def alerts(self, call: Call[AlertsQuery, Nothing]) -> web.Response:
        """List alerts, the latest first; a customer sees its own, and not where they went."""
        query, holder = call.query, call.holder
        customer = auth.customer_of(holder, query.customer)
        if holder.customer is not None and query.state is not None:
            raise auth.Denied(403, f"{holder.called} may not ask where alerts went")
        only = {"customer": customer, "kind": query.kind, "severity": query.severity}
        async with self._database.reading() as connection:
            found = await reports.list_alerts(connection, query.cursor, query.limit + 1, state=query.state, **only)
        told = found[: query.limit]
        if holder.customer is not None:
            told = [{name: value for name, value in one.items() if name != "deliveries"} for one in told]
        more = {"next": told[-1]["id"]} if len(found) > query.limit else {}
        return answer(200, {"alerts": told, **more})

    async def anomalies(self, call: Call[AnomaliesQuery, Nothing]) -> web.Response:
        """List what was not as usual; a customer sees its own."""
        query = call.query
        customer = auth.customer_of(call.holder, query.customer)
        async with self._database.reading() as connection:
            found = await store.list_findings(connection, query.cursor, query.limit + 1, customer)
        told = found[: query.limit]
        more = {"next": told[-1]["id"]} if len(found) > query.limit else {}
        return answer(200, {"anomalies": told, **more})

    async def replay(self, call: Call[ReplayQuery, Nothing]) -> web.Response:
        """Have an alert sent again."""
        said, channel = call.path("alert"), call.query.channel
        if not NUMBER.fullmatch(said):
            raise Refused(404, "there is no such alert")
        async with self._database.writing() as connection:
            channels = await reports.replay_alert(connection, int(said), channel)
            told = await reports.find_alert(connection, int(said))
            if told is None:
                raise Refused(404, "there is no such alert")
            if not channels:
                why = "no channel has given it up" if channel is None else f"it has not gone by the channel {channel}"
                raise Refused(409, f"{why}: name one of its channels, whose delivery is not under way")
            await audit.append_entry(
                connection, call.caller, AuditEntry("alert.replay", said, None, {"channels": channels})
            )
        return answer(200, told)
