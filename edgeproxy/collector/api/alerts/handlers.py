"""Alerts, their delivery, and anomalies of usage."""

import re

from aiohttp import web

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts import deliveries, reports
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.alerts.models import AlertsQuery, AnomaliesQuery, ReplayQuery
from edgeproxy.collector.api.endpoint import Call, Nothing
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.responses import ProblemError, answer

NUMBER = re.compile(r"[1-9][0-9]{0,14}")
NOT_FOUND = "there is no such alert"


class AlertHandlers(Handlers):
    """Handlers of alerts and anomalies."""

    async def list_alerts(self, call: Call[AlertsQuery, Nothing]) -> web.Response:
        """List alerts, latest first; a customer sees its own, without their deliveries."""
        query, holder = call.query, call.holder
        customer = auth.customer_of(holder, query.customer)
        if holder.customer is not None and query.state is not None:
            raise auth.DeniedError(403, f"{holder.called} may not ask where alerts went")
        filters = {"customer": customer, "kind": query.kind, "severity": query.severity}
        async with self._database.reading() as connection:
            rows = await reports.list_alerts(connection, query.cursor, query.limit + 1, state=query.state, **filters)
        alerts = rows[: query.limit]
        more = {"next": alerts[-1]["id"]} if len(rows) > query.limit else {}
        if holder.customer is None:
            return answer(200, {"alerts": alerts, **more})
        own = [{name: value for name, value in alert.items() if name != "deliveries"} for alert in alerts]
        return answer(200, {"alerts": own, **more})

    async def list_anomalies(self, call: Call[AnomaliesQuery, Nothing]) -> web.Response:
        """List days with unusual usage; a customer sees its own."""
        query = call.query
        customer = auth.customer_of(call.holder, query.customer)
        async with self._database.reading() as connection:
            rows = await store.list_findings(connection, query.cursor, query.limit + 1, customer)
        anomalies = rows[: query.limit]
        more = {"next": anomalies[-1]["id"]} if len(rows) > query.limit else {}
        return answer(200, {"anomalies": anomalies, **more})

    async def replay_alert(self, call: Call[ReplayQuery, Nothing]) -> web.Response:
        """Send an alert again."""
        number, channel = call.path("alert"), call.query.channel
        if not NUMBER.fullmatch(number):
            raise ProblemError(404, NOT_FOUND)
        async with self._database.writing() as connection:
            channels = await deliveries.replay_deliveries(connection, int(number), channel, now_ms())
            alert = await reports.find_alert(connection, int(number))
            if alert is None:
                raise ProblemError(404, NOT_FOUND)
            if not channels:
                why = "no channel has given it up" if channel is None else f"it has not gone by the channel {channel}"
                raise ProblemError(409, f"{why}: name one of its channels, whose delivery is not under way")
            entry = AuditEntry("alert.replay", number, None, {"channels": channels})
            await audit.append_entry(connection, call.caller, entry)
        return answer(200, alert)
