"""The delivery of alerts to channels. Alerts are routed once and tried until accepted or given up, with escalation.

All state is in the database, so a kill at any moment loses nothing. At worst a message is sent twice with one id. Each
channel has its own task, so a slow channel does not delay others. Only one of several collectors sends through a
channel at a time.
"""

import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.alerts import deliveries, mutes
from edgeproxy.collector.alerts.alert import has_many
from edgeproxy.collector.alerts.channels import Envelope, send_message
from edgeproxy.collector.alerts.deliveries import TO_CUSTOMER, DeliveryState, DueDelivery, NewDelivery, Recipient
from edgeproxy.collector.alerts.kinds import NOTICES, SEVERITIES, AlertKind, Severity, find_policy
from edgeproxy.collector.alerts.message import AlertMessage, ServiceSite, parse_message
from edgeproxy.collector.database.alert_tables import alert_deliveries, alert_handling, alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat, run_guarded
from edgeproxy.collector.database.single_runner import try_exclusive
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.encryption.data_keys import SealedValueError
from edgeproxy.collector.encryption.keyring import KeysUnavailableError
from edgeproxy.collector.webhooks.http_post import DeliveryFailure
from edgeproxy.collector.webhooks.retries import compute_wait
from edgeproxy.config.collector.alerts import Alerts

POLL_SECONDS = 1.0
"""Seconds between two checks for work."""
COUNT_SECONDS = 10.0
"""Seconds between two counts of outstanding deliveries, and between two checks for alerts to escalate."""
ROUTED_MAX = 200
"""Alerts routed per transaction."""
SENT_MAX = 50
"""Messages of a channel fetched per query."""
LOCKED = f"{TO_CUSTOMER}:locked"
"""Suffix of the channel for deliveries to customers whose addresses cannot be decrypted now."""
LOCKED_SECONDS = 60.0
"""Seconds until the next attempt to decrypt them."""
NO_CHANNEL = "the configuration has no such channel"

Contacts = Callable[[AsyncConnection, Iterable[str]], Awaitable[dict[str, Recipient]]]
"""Returns the recipients of customers' own alerts. Customers who want none are left out."""


UNREADABLE_ERROR = "the alert or its recipient cannot be read"


class AlertMetrics(Protocol):
    """The metrics of alerts, for the collector's registry."""

    def alert_raised(self, kind: str, key: str) -> None:
        """Count an alert of this kind with this key."""

    def alert_tried(self, channel: str, result: str) -> None:
        """Count an attempt through a channel: `sent`, `failed` or `dead`."""

    def alerts_outstanding(self, due: int, dead: int) -> None:
        """Set the number of due deliveries, and of deliveries given up."""


FetchNames = Callable[[AsyncConnection, str], Awaitable[tuple[str, str]]]
"""Returns a customer's name in the API, and its name as a person wrote it, by its name in the ledger."""


async def fetch_no_names(_: AsyncConnection, name: str) -> tuple[str, str]:
    """Return the same name twice, because no customer has others."""
    return name, name


FetchReaders = Callable[[AsyncConnection, str, Collection[str]], Awaitable[list[Recipient]]]
"""Returns the contacts of a customer who have one of these roles."""
FindAddress = Callable[[AsyncConnection, str, str], Awaitable[str | None]]
"""Returns the address of a customer's contact by the label in a notice, or None if there is no such contact."""


class NoticeContacts(NamedTuple):
    """Access to the contacts of customers for notices."""

    fetch_readers: FetchReaders
    find_address: FindAddress


async def fetch_no_readers(_: AsyncConnection, __: str, ___: Collection[str]) -> list[Recipient]:
    """Return no recipients, because there are no contacts."""
    return []


async def find_no_address(_: AsyncConnection, __: str, ___: str) -> None:
    """Return None, because there are no contacts."""


NO_CONTACTS = NoticeContacts(fetch_no_readers, find_no_address)


def name_lock(channel: str) -> str:
    """Return the name of a channel's lock.

    Mails to customers through a channel have their own lock, so operators never wait for customers.
    """
    name, _, about = channel.partition(":")
    return f"{name}-customers" if about else name


class AlertSender:
    """Sends alerts through their channels until it is cancelled."""

    def __init__(
        self,
        database: Database,
        settings: Alerts,
        metrics: AlertMetrics,
        contacts: Contacts,
        site: ServiceSite,
        fetch_names: FetchNames = fetch_no_names,
        notices: NoticeContacts = NO_CONTACTS,
    ) -> None:
        self._database = database
        self._settings = settings
        self._metrics = metrics
        self._set_aside: set[int] = set()
        """Unreadable alerts. Without this set, ROUTED_MAX of them would block all later alerts."""
        self._contacts = contacts
        self._site = site
        self._fetch_names = fetch_names
        self._notices = notices
        self._tasks = Tasks()
        self._busy: set[str] = set()
        """Channels with a running task."""
        self._counted_at = float("-inf")
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    def use(self, settings: Alerts) -> None:
        """Use these settings from now on."""
        self._settings = settings

    async def run(self) -> None:
        """Route and send alerts until cancelled."""
        try:
            failed = "alerts could not be looked at, and are later"
            job = Job("alert-delivery", POLL_SECONDS, failed, lambda: self.step(time.time()))
            await repeat(job, self._limited_log)
        finally:
            await self._tasks.cancel()

    async def step(self, now: float) -> None:
        """Route new alerts, and start sending deliveries that are due at this Unix second."""
        await self._route(now)
        if time.monotonic() - self._counted_at >= COUNT_SECONDS:
            self._counted_at = time.monotonic()
            await self._escalate(now)
            await self._count_outstanding()
        async with self._database.reading() as connection:
            due_channels = await deliveries.list_due_channels(connection, round(now * 1000))
        for channel in sorted(due_channels - self._busy):
            self._busy.add(channel)
            failed = "a channel of alerts could not be served, and is later"
            self._tasks.start(
                f"alerts by {channel}", run_guarded(self._limited_log, failed, self._drain_channel(channel))
            )

    # ---- routing

    async def _route(self, now: float) -> None:
        """Log each new alert, and insert its deliveries."""
        ours = await self._claim(sa.select(alerts).where(alerts.c.routed_at.is_(None)), "routed_at", now)
        for alert in ours:
            if alert.kind not in NOTICES:
                self._log_alert(alert)
            self._metrics.alert_raised(alert.kind, alert.key)

    async def _escalate(self, now: float) -> None:
        """Send unacknowledged alerts through further channels, if no channel has accepted them for a while."""
        columns = alert_deliveries.c
        own = columns.channel.not_like(f"%{TO_CUSTOMER}%")
        unsent = sa.select(columns.alert).where(columns.state.in_([DeliveryState.DUE, DeliveryState.DEAD]), own)
        sent = sa.exists().where(columns.alert == alerts.c.id, columns.state == DeliveryState.SENT, own)
        marks = alert_handling.c
        seen = sa.select(marks.alert).where(marks.side == "operator", marks.acknowledged_at.is_not(None))
        before = round((now - self._settings.escalate) * 1000)
        statement = sa.select(alerts).where(
            alerts.c.id.in_(unsent),
            ~sent,
            alerts.c.id.not_in(seen),
            alerts.c.routed_at <= before,
            alerts.c.escalated_at.is_(None),
        )
        for alert in await self._claim(statement, "escalated_at", now):
            self._log.error("no channel has taken an alert, and others are tried", alert=alert.id, key=alert.key)

    async def _claim(self, statement: sa.Select[tuple[object, ...]], column: str, now: float) -> list[AlertMessage]:
        """Claim the alerts of a query that no other collector has claimed, and insert their deliveries.

        `column` is set to the time of the claim.
        """
        statement = statement.where(alerts.c.id.not_in(self._set_aside)).order_by(alerts.c.id).limit(ROUTED_MAX)
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
            candidates = parse_rows(alerts.name, rows, parse_message, attrgetter("id"))
        self._set_aside |= {row.id for row in rows} - {alert.id for alert in candidates}
        if not candidates:
            return []
        now_ms = round(now * 1000)
        ids = [alert.id for alert in candidates]
        claim = sa.update(alerts).where(alerts.c.id.in_(ids), alerts.c[column].is_(None)).values({column: now_ms})
        async with self._database.writing() as connection:
            claimed = set(await connection.scalars(claim.returning(alerts.c.id)))
            ours = [alert for alert in candidates if alert.id in claimed]
            if column == "routed_at":
                new = await self._build_routes(connection, ours, now_ms)
            else:
                new = [NewDelivery(alert.id, name) for alert in ours for name in self._list_higher(alert.severity)]
            await deliveries.insert_deliveries(connection, new, now_ms)
        return ours

    async def _build_routes(
        self, connection: AsyncConnection, ours: Sequence[AlertMessage], now_ms: int
    ) -> list[NewDelivery]:
        """Return the deliveries of new alerts, through the channels of their severity and to customers.

        Muted kinds are not sent, and of the ends of many keys only the first. Operators get alerts even while the keys
        of customers are unavailable.
        """
        ours = [
            alert
            for alert in ours
            if alert.kind != AlertKind.KEY_ENDS_SOON
            or alert.customer is None
            or not await has_many(connection, alert.customer, alert.kind, alert.at, alert.id)
        ]
        about = {alert.customer or "" for alert in ours}
        to_operators = await mutes.fetch_mutes(connection, "operator", about, now_ms)
        to_customers = await mutes.fetch_mutes(connection, "customer", about, now_ms)
        audible = [alert for alert in ours if (alert.kind, alert.customer) not in to_customers]
        to_channels = [
            NewDelivery(alert.id, name)
            for alert in ours
            if (alert.kind, alert.customer or "") not in to_operators and alert.kind not in NOTICES
            for name in self.list_channels(alert.severity)
        ]
        try:
            return [*to_channels, *await self._build_customer_routes(connection, audible)]
        except (KeysUnavailableError, SealedValueError):
            locked = f"{self._settings.customers}{LOCKED}"
            return [*to_channels, *(NewDelivery(alert.id, locked) for alert in audible if alert.customer is not None)]

    async def _build_customer_routes(
        self, connection: AsyncConnection, ours: Sequence[AlertMessage]
    ) -> list[NewDelivery]:
        """Return the deliveries to customers: alerts to their alert address, else to contacts by role like notices."""
        if self._settings.customers is None:
            return []
        channel = f"{self._settings.customers}{TO_CUSTOMER}"
        names = {alert.customer for alert in ours if alert.customer is not None and alert.kind not in NOTICES}
        contacts = await self._contacts(connection, sorted(names))
        routes = [
            NewDelivery(alert.id, channel, *contacts[alert.customer])
            for alert in ours
            if alert.customer in contacts and alert.kind not in NOTICES
        ]
        for alert in ours:
            policy = find_policy(alert.kind)
            if policy is None or alert.customer is None:
                continue
            if roles := policy.contacts or (policy.default_contacts if alert.customer not in contacts else frozenset()):
                readers = await self._notices.fetch_readers(connection, alert.customer, roles)
                routes += [NewDelivery(alert.id, f"{channel}:{place}", *reader) for place, reader in enumerate(readers)]
        return routes

    def list_channels(self, severity: Severity) -> list[str]:
        """Return the channels of a severity, or the channels of the next lower severity if it has none."""
        for lower in SEVERITIES[SEVERITIES.index(severity) :]:
            names: Sequence[str] = getattr(self._settings.routes, lower)
            if names:
                return list(dict.fromkeys(names))
        return []

    def _list_higher(self, severity: Severity) -> list[str]:
        """Return the channels for an escalation: channels of the next higher severity, and all channels for `page`."""
        at = SEVERITIES.index(severity)
        return self.list_channels(SEVERITIES[at - 1]) if at else list(self._settings.channels)

    def _log_alert(self, alert: AlertMessage) -> None:
        """Log an alert. Every alert has a log line."""
        write = {"page": self._log.error, "warn": self._log.warning, "info": self._log.info}[alert.severity]
        about = {"severity": alert.severity, "title": alert.title, "details": alert.details}
        write("alert", alert=alert.id, key=alert.key, **about)

    async def _count_outstanding(self) -> None:
        outstanding = (DeliveryState.DUE, DeliveryState.DEAD)
        async with self._database.reading() as connection:
            counts = await deliveries.count_by_state(connection, outstanding)
        self._metrics.alerts_outstanding(*(counts.get(state, 0) for state in outstanding))

    # ---- sending

    async def _drain_channel(self, channel: str) -> None:
        """Send the due deliveries of a channel, oldest first, until one fails."""
        attempt = self._unlock if channel.endswith(LOCKED) else self._attempt_delivery
        try:
            async with try_exclusive(self._database, f"alerts-{name_lock(channel)}") as mine:
                while mine and (due := await self._list_due(channel)):
                    for delivery in due:
                        if not await attempt(channel, delivery):
                            return
        finally:
            self._busy.discard(channel)

    async def _unlock(self, channel: str, delivery: DueDelivery) -> bool:
        """Create the deliveries of an alert to its customer, whose keys were unavailable. Return True if they exist.

        Deliveries that no key can decrypt are given up.
        """
        alert, now = delivery.message.id, time.time()
        state, values = DeliveryState.SENT, {"sent_at": round(now * 1000)}
        error: str | None = None
        async with self._database.writing() as connection:
            try:
                made = await self._build_customer_routes(connection, [delivery.message])
                await deliveries.insert_deliveries(connection, made, round(now * 1000))
            except SealedValueError as sealed_error:
                state, values, error = DeliveryState.DEAD, {}, str(sealed_error)
            except KeysUnavailableError as keys_error:
                state, values, error = (
                    DeliveryState.DUE,
                    {"due_at": round((now + LOCKED_SECONDS) * 1000)},
                    str(keys_error),
                )
            await deliveries.transition(connection, alert, channel, DeliveryState.DUE, state, error=error, **values)
        return state != DeliveryState.DUE

    async def _list_due(self, channel: str) -> list[DueDelivery]:
        async with self._database.reading() as connection:
            due, unreadable = await deliveries.list_due(connection, channel, round(time.time() * 1000), SENT_MAX)
        for alert in unreadable:  # Otherwise they would block the others for ever.
            async with self._database.writing() as connection:
                dead = DeliveryState.DEAD
                await deliveries.transition(connection, alert, channel, DeliveryState.DUE, dead, error=UNREADABLE_ERROR)
        return due

    async def _name_customer(self, alert: AlertMessage) -> AlertMessage:
        """Return an alert for its customer, with the names that people know the customer by.

        Operators' channels get the pseudonym, because messages there cannot be erased.
        """
        if (customer := alert.customer) is None:
            return alert
        by = alert.details.get("by")
        async with self._database.reading() as connection:
            name, shown = await self._fetch_names(connection, customer)
            if alert.kind in NOTICES and isinstance(by, str) and ":" in by:
                address = await self._notices.find_address(connection, customer, by)
                label = None if address is None else f"contact:{address}"
                alert = alert._replace(details={**alert.details, "by": label})
        if name == customer:
            return alert._replace(customer=shown)
        title, details = alert.title, orjson.dumps(alert.details).decode()
        return alert._replace(
            customer=shown,
            title=title.replace(customer, name),
            details=orjson.loads(details.replace(customer, name)),
        )

    async def _attempt_delivery(self, channel: str, delivery: DueDelivery) -> bool:
        """Try to send one message, and record the result. Return True if the channel accepted it."""
        name = channel.partition(":")[0]
        settings, alert = self._settings.channels.get(name), delivery.message
        if settings is None:
            failure: DeliveryFailure | None = DeliveryFailure(NO_CHANNEL)
        else:
            language = delivery.language or self._settings.language
            envelope = Envelope(delivery.recipient, time.time(), self._settings.runbooks, language, self._site)
            shown = alert if delivery.recipient is None else await self._name_customer(alert)
            failure = await send_message(settings, shown, envelope)
        attempts, now = delivery.attempts + 1, time.time()
        values: dict[str, int | str | None] = {"attempts": attempts}
        if failure is None:
            state, result = DeliveryState.SENT, "sent"
            values |= {"sent_at": round(now * 1000), "error": None}
        else:
            values["error"] = failure.why
            wait = None if failure.is_final else compute_wait(attempts, failure.wait, random.random)
            if wait is None:
                state, result = DeliveryState.DEAD, "dead"
            else:
                state, result = DeliveryState.DUE, "failed"
                values["due_at"] = round((now + wait) * 1000)
        async with self._database.writing() as connection:
            await deliveries.transition(connection, alert.id, channel, DeliveryState.DUE, state, **values)
        self._metrics.alert_tried(name, result)
        if failure is not None:
            about = {"alert": alert.id, "attempts": attempts, "why": failure.why}
            self._log.warning("a channel did not take an alert", channel=name, result=result, **about)
        return failure is None
