"""Alerts, their delivery, and anomalies of usage."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, NotRequired, cast

from pydantic import BeforeValidator, JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector import alert_handling as handling
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.fields import End, Text
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.alert_handling import AlertHandling, AlertSubject
from edgeproxy.collector.alerts import deliveries, reports
from edgeproxy.collector.alerts.deliveries import DeliveryState
from edgeproxy.collector.alerts.kinds import AlertKind, Severity
from edgeproxy.collector.alerts.mutes import Side
from edgeproxy.collector.alerts.reports import PAGE_ALERTS_MAX
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.anomalies.judgement import Kind as FindingKind
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.contact_rights import list_alert_kinds
from edgeproxy.collector.api.endpoint import (
    ADMIN,
    MONEY_READERS,
    OWN,
    READERS,
    AnyCall,
    Call,
    Nothing,
    Query,
    get,
    post,
)
from edgeproxy.collector.api.field_types import SEQ_MAX, ChangeQuery, Printed, Truth, in_query
from edgeproxy.collector.api.group import NUMBER_SCHEMA, Group, PathParameter
from edgeproxy.collector.api.responses import ProblemError, next_page
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole


class AlertsQuery(Query):
    """Filters of alerts, and the page."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    """The number of alerts on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""
    customer: Printed | None = None
    """Only alerts of this customer, by name. A customer's own token lists only its own alerts."""
    kind: Printed | None = None
    """Only alerts of this kind, such as `quota_reached`."""
    severity: Severity | None = None
    """Only alerts of this severity."""
    acknowledged: Truth | None = None
    """True: only alerts that your side (operators or the customer) has acknowledged. False: only alerts that still wait
    for an acknowledgement; alerts of severity `info` never do.
    """
    order: Literal["newest", "oldest"] = "newest"
    """`newest` goes back from the latest alert, or from `cursor`; `oldest` starts with the oldest one."""
    state: Literal["due", "sent", "dead"] | None = None
    """Only alerts with a delivery in this state: `due` waits to be sent, `dead` was given up. For operators only."""


class AnomaliesQuery(Query):
    """Filters of anomalies, and the page."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ALERTS_MAX)), in_query(1, PAGE_ALERTS_MAX)] = 100
    """The number of anomalies on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""
    customer: Printed | None = None
    """Only anomalies of this customer, by name."""


class Anomaly(TypedDict):
    """A day of unusual usage by a customer."""

    id: int
    """The number of the finding; later findings have larger ones."""
    customer: str
    """The customer, by name."""
    meter: str
    """The meter."""
    day: str
    """The day in UTC, such as 2027-01-31."""
    severity: Severity
    """`page`, `warn` or `info`."""
    kind: FindingKind
    """`volume` for much more or less usage than usual, `pattern` for usage at unusual hours, `both` for both."""
    value: int
    """The units used in the judged hour or day."""
    expected: int
    """The units expected in that time."""
    score: float
    """The distance from the expected value, in deviations of the usual usage."""
    likeness: float | None
    """How similar the hours of the day are to the usual ones, from 0 to 1; null if the volume was judged."""
    action: str
    """Advice for the operator."""
    detected_at: str
    """The time when the anomaly was found."""
    expires_at: str
    """The time when the finding is deleted."""


class AnomalyList(TypedDict):
    """A page of days with unusual usage, latest finding first."""

    anomalies: list[Anomaly]
    """The findings of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


class ReplayQuery(Query):
    """The channel of a replay."""

    channel: Name | None = None
    """The channel that sends the alert again, by name; by default all channels that gave it up."""


class AlertDeliveryResponse(TypedDict):
    """The delivery of an alert to a channel."""

    channel: str
    """The name of the channel in the collector's file."""
    state: DeliveryState
    """`due` waits to be sent, `sent` was delivered, `dead` was given up."""
    attempts: int
    """The number of attempts so far."""
    error: str | None
    """The error of the last attempt; null if it succeeded, or if there was no attempt yet."""
    sent_at: str | None
    """The time of the delivery; null until then."""
    next_at: str | None
    """The time of the next attempt; null if none is due."""


class AlertResponse(TypedDict):
    """An alert. Only operators see `deliveries`."""

    id: int
    """The number of the alert; later alerts have larger ones."""
    key: str
    """The identity of the alert's cause. Each key raises one alert only."""
    kind: AlertKind
    """The kind of the alert, such as `quota_reached` or `key_rotation_due`."""
    severity: Severity
    """`page`, `warn` or `info`."""
    customer: str | None
    """The customer that the alert is about, by name; null if it is about no customer."""
    title: str
    """One sentence for a person."""
    details: dict[str, JsonValue]
    """The facts behind the alert. Its kind decides which fields there are."""
    at: str
    """The time when the alert was raised."""
    handling: AlertHandling
    """The handling of the alert by operators; for a customer's own token, the handling by the customer."""
    deliveries: NotRequired[list[AlertDeliveryResponse]]
    """The delivery of the alert through each channel; for operators only."""


class AcknowledgeAlertRequest(Body):
    """The note of the person who acknowledges an alert."""

    why: Text | None = None
    """A note about the cause or the handling, for others who see the alert."""


class AssignAlertRequest(Body):
    """The person who looks after an alert."""

    to: Text | None
    """The name or address of the person; null removes the assignment."""


class MuteAlertRequest(Body):
    """The end of the mute, and its reason."""

    until: End
    """The end of the mute, at most 90 days from now; for operators at most 2 days if the kind can page them. A time in
    the past ends the mute at once.
    """
    why: Text
    """The reason, for the audit log."""


class AlertList(TypedDict):
    """A page of alerts, the latest first."""

    alerts: list[AlertResponse]
    """The alerts of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


Step = Callable[[AlertSubject, Side], Awaitable[None]]
"""A step in the handling of an alert."""
NUMBER = re.compile(r"[1-9][0-9]{0,14}")


class AlertHandlers(ChangeHandlers):
    """Handlers of alerts and anomalies."""

    @get("/v1/alerts", roles=READERS | OWN)
    async def list_alerts(self, call: Call[AlertsQuery, Nothing]) -> AlertList:
        """List alerts: latest first, unless `order` says otherwise."""
        query, holder = call.query, call.holder
        customer = auth.customer_of(holder, query.customer)
        if holder.customer is not None and query.state is not None:
            raise auth.DeniedError(request_codes.ROLE_DENIED, f"{holder.called} may not ask where alerts went")
        filters = {"customer": customer, "kind": query.kind, "severity": query.severity}
        async with self._database.reading() as connection:
            alerts = await reports.list_alerts(
                connection,
                query.cursor,
                query.limit,
                state=query.state,
                acknowledged=query.acknowledged,
                side=find_side(holder),
                oldest_first=query.order == "oldest",
                notices=customer is not None or query.kind is not None,
                kinds=list_alert_kinds(holder),
                has_deliveries=holder.customer is None,
                **filters,
            )
            await add_handling(connection, call.holder, alerts)
        return {"alerts": cast(list[AlertResponse], alerts), **next_page(alerts.next)}

    @post(
        "/v1/alerts/{alert}/replay",
        roles=ADMIN,
        errors={409: "No channel has given the alert up, or its delivery is under way."},
    )
    async def replay_alert(self, call: Call[ReplayQuery, Nothing]) -> AlertResponse:
        """Send an alert again through one channel, or through all channels that gave it up."""
        number, channel = call.path("alert"), call.query.channel
        if not NUMBER.fullmatch(number):
            raise ProblemError(account_codes.ALERT_NOT_FOUND, handling.NOT_THERE)
        async with self._database.writing() as connection:
            channels = await deliveries.replay_deliveries(connection, int(number), channel, now_ms())
            alert = await reports.find_alert(connection, int(number))
            if alert is None:
                raise ProblemError(account_codes.ALERT_NOT_FOUND, handling.NOT_THERE)
            await add_handling(connection, call.holder, [alert])
            if not channels:
                why = "no channel has given it up" if channel is None else f"it has not gone by the channel {channel}"
                raise ProblemError(
                    account_codes.ALERT_NOT_GIVEN_UP,
                    f"{why}: name one of its channels, whose delivery is not under way",
                )
            owner = None if alert["customer"] is None else str(alert["customer"])
            entry = AuditEntry("alert.replay", number, None, {"channels": channels}, owner)
            await audit.append_entry(connection, call.caller, entry)
        return cast(AlertResponse, alert)

    # ---- handling of alerts

    @post(
        "/v1/alerts/{alert}/acknowledge",
        roles=MONEY_READERS | OWN,
        example={"why": "We look into it."},
        errors={404: "There is no such alert.", 409: "The alert is acknowledged already."},
    )
    async def acknowledge_alert(
        self, call: Call[ChangeQuery, AcknowledgeAlertRequest], connection: AsyncConnection
    ) -> AlertResponse:
        """Acknowledge an alert: tell others that you have seen it."""

        async def do(alert: AlertSubject, side: Side) -> None:
            await handling.acknowledge(connection, call.caller, alert, side, call.body.why, now_ms())

        return await self._handle(call, connection, do)

    @post(
        "/v1/alerts/{alert}/assign",
        roles=MONEY_READERS | OWN,
        example={"to": "dev@acme.example"},
        errors={404: "There is no such alert."},
    )
    async def assign_alert(
        self, call: Call[ChangeQuery, AssignAlertRequest], connection: AsyncConnection
    ) -> AlertResponse:
        """Assign an alert to a person, or to no person."""

        async def do(alert: AlertSubject, side: Side) -> None:
            await handling.assign(connection, call.caller, alert, side, call.body.to, now_ms())

        return await self._handle(call, connection, do)

    @post(
        "/v1/alerts/{alert}/mute",
        roles=MONEY_READERS | OWN,
        example={"until": "2027-03-08T00:00:00Z", "why": "A load test."},
        errors={404: "There is no such alert."},
    )
    async def mute_alert(self, call: Call[ChangeQuery, MuteAlertRequest], connection: AsyncConnection) -> AlertResponse:
        """Mute the kind of an alert for a while.

        Later alerts of this kind for this customer are listed but not sent.
        """

        async def do(alert: AlertSubject, side: Side) -> None:
            await handling.mute(connection, call.caller, alert, side, call.body.until, call.body.why, now_ms())

        return await self._handle(call, connection, do)

    async def _handle(self, call: AnyCall, connection: AsyncConnection, do: Step) -> AlertResponse:
        """Take a step in the handling of an alert, and answer with the updated alert."""
        number = call.path("alert")
        if not NUMBER.fullmatch(number):
            raise ProblemError(account_codes.ALERT_NOT_FOUND, handling.NOT_THERE)
        alert = await handling.get_subject(connection, int(number))
        kinds = list_alert_kinds(call.holder)
        if kinds is not None and alert.kind not in kinds:
            raise auth.DeniedError(
                request_codes.ROLE_DENIED,
                f"{call.holder.called} (role {call.holder.contact_role}) reads no such alert",
            )
        await do(alert, find_side(call.holder))
        report = await reports.find_alert(connection, alert.id, has_deliveries=call.holder.customer is None)
        assert report is not None
        await add_handling(connection, call.holder, [report])
        return cast(AlertResponse, report)

    @get("/v1/anomalies", roles=READERS | OWN)
    async def list_anomalies(self, call: Call[AnomaliesQuery, Nothing]) -> AnomalyList:
        """List days with unusual usage, latest finding first."""
        query = call.query
        customer = auth.customer_of(call.holder, query.customer)
        async with self._database.reading() as connection:
            anomalies = await store.list_findings(connection, query.cursor, query.limit, customer)
        return {"anomalies": cast(list[Anomaly], anomalies), **next_page(anomalies.next)}


def find_side(holder: Holder) -> Side:
    """Return the side whose alerts a caller handles."""
    return "operator" if holder.customer is None else "customer"


async def add_handling(connection: AsyncConnection, holder: Holder, alerts: Sequence[JsonObject]) -> None:
    """Add to alerts of the API how the caller's side has handled them."""
    if not alerts:
        return
    subjects = [find_subject(alert) for alert in alerts]
    done = await handling.fetch_handling(connection, subjects, find_side(holder), now_ms())
    for alert, subject in zip(alerts, subjects, strict=True):
        alert["handling"] = cast(JsonObject, done[subject.id])


def find_subject(alert: JsonObject) -> AlertSubject:
    """Return the fields of an alert of the API that its handling needs."""
    customer = alert["customer"]
    return AlertSubject(int(str(alert["id"])), str(alert["kind"]), None if customer is None else str(customer))


GROUP = Group(
    "alerts",
    "Alerts, their delivery, and anomalies of usage.",
    AlertHandlers,
    parameters={"alert": PathParameter("The number of the alert.", NUMBER_SCHEMA, find_owner=handling.find_owner)},
)
