"""SIGHUP: the collector's file is read again, and settings that can change at run time are applied."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.base import log
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.collector.alerts.delivery import AlertSender
from edgeproxy.collector.anomalies.job import AnomalyJob
from edgeproxy.collector.api.app import Service
from edgeproxy.collector.api.listener import Listeners
from edgeproxy.collector.billing.stripe.client import (
    StripeConfigurationError,
    read_secret_key,
    read_webhook_secrets,
)
from edgeproxy.collector.billing.subscriptions.plan_versions import PlanEditedError
from edgeproxy.collector.database.database import CONNECTION_ERRORS, UnusableDatabaseError
from edgeproxy.collector.database.periodic import run_guarded
from edgeproxy.collector.jobs.billing import build_payload_cipher
from edgeproxy.collector.jobs.operator_alerts import OperatorAlerts
from edgeproxy.collector.jobs.publication import Publication
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.certificates import InvalidCertificateError
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorFile, CollectorSettings
from edgeproxy.config.outgoing import use_outgoing
from edgeproxy.config.part import FieldMark, replace_secrets
from edgeproxy.config.problems import ConfigError
from edgeproxy.tracing.recorder import SpanRecorder
from edgeproxy.wire.directory_signatures import InvalidSigningKeyError

if TYPE_CHECKING:
    from edgeproxy.collector.pages_service import PagesService

REFUSALS = (
    ConfigError,
    InvalidCertificateError,
    InvalidSigningKeyError,
    PlanEditedError,
    StripeConfigurationError,
    UnusableDatabaseError,
)
"""Errors in files. After any of them, the whole configuration is rejected."""


class Reloader:
    """The settings a collector serves with, reloaded on request."""

    def __init__(
        self,
        settings: CollectorSettings,
        service: Service,
        names: KnownNames,
        listeners: Listeners,
        metrics: Metrics,
        alerting: Sequence[OperatorAlerts | AlertSender],
        anomalies: AnomalyJob,
        record: Callable[[CollectorSettings], Awaitable[None]],
        publication: Publication,
        recorder: SpanRecorder,
        pages: "PagesService | None",
    ) -> None:
        """`record` records the plans on sale. It raises PlanEditedError."""
        self._started = settings
        self._serving = settings
        self._service = service
        self._names = names
        self._listeners = listeners
        self._metrics = metrics
        self._alerting = alerting
        self._anomalies = anomalies
        self._record = record
        self._publication = publication
        self._recorder = recorder
        self._pages = pages
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(0.0)
        metrics.config_ok.set(1)

    async def watch(self, file: Path, requested: asyncio.Event) -> None:
        """Reload whenever `requested` is set."""
        while True:
            await requested.wait()
            requested.clear()
            await run_guarded(self._limited_log, "the configuration was not taken over", self.reload(file))

    async def reload(self, file: Path) -> None:
        """Apply a file, and the secrets that it names, completely or not at all; see `_connecting` for an exception."""
        resources = self._service.resources
        processor = resources.processor
        try:
            new = await run_in_thread("read the configuration", lambda: load_collector(file, os.environ))
            webhook_secrets, key = await run_in_thread("read Stripe's keys", lambda: self._read_stripe_secrets(new))
            publisher = self._publication.prepare(new.directory)
            # A database may have a new password and a new authority. It must be reached to record the plans.
            async with self._connecting(new), self._listeners.changing(new.tls):
                await self._record(new)  # The last step: a recorded plan stays.
        except (*REFUSALS, *CONNECTION_ERRORS) as error:
            self._metrics.config_ok.set(0)
            self._log.error("the configuration was refused; what served before serves on", why=str(error))
            return
        self._serving = new
        resources.webhook_secrets = webhook_secrets
        if key is not None and resources.stripe is not None and processor is not None:
            resources.stripe.use_key(key)
            processor.payloads = build_payload_cipher(webhook_secrets, key)
        self._service.apply_settings(new)
        self._replace_secrets(new)
        self._names.set_known(new.customers, new.meters)
        for one in self._alerting:
            one.use(new.alerts)
        self._anomalies.use(new)
        await self._publication.begin(publisher)
        await self._recorder.follow(new.tracing)
        self._metrics.config_ok.set(1)
        waiting = self._list_waiting(new)
        report = self._log.warning if waiting else self._log.info
        report("reloaded", sha256=new.sha256[:12], needs_restart=waiting)

    @asynccontextmanager
    async def _connecting(self, new: CollectorSettings) -> AsyncIterator[None]:
        """Use the trust, the proxy and the password of a new file; take trust and proxy back if the block fails.

        A password that the server accepts stays: the server would refuse new connections with the old one, and those
        that it accepted have ended. Raises UnusableDatabaseError if the new password is of no use.
        """
        database = self._service.resources.database
        try:
            use_outgoing(new)
            if database.has_new_password(new.database):
                await database.check_password(new.database)
                database.use_password(new.database)
            yield
        except BaseException:
            use_outgoing(self._serving)
            raise

    def _list_waiting(self, new: CollectorSettings) -> list[str]:
        """List the changed settings that need a restart."""
        fixed = CollectorFile.list_marked(FieldMark.RESTART)
        waiting = {name for name in fixed if getattr(self._started, name) != getattr(new, name)}
        if restart_settings_of(self._started) != restart_settings_of(new):
            waiting.add("billing")
        if self._pages is not None and sign_in_settings_of(self._started) != sign_in_settings_of(new):
            waiting.add("pages")
        return sorted(waiting)

    def _read_stripe_secrets(self, new: CollectorSettings) -> tuple[tuple[str, ...], str | None]:
        """Return the secrets of webhooks, and Stripe's key if its client stays. Raises StripeConfigurationError.

        Before a restart the secrets stay, because new ones may be for another server.
        """
        resources = self._service.resources
        if new.billing is None:
            return resources.webhook_secrets, None
        secrets = read_webhook_secrets(new.billing.stripe)
        if restart_settings_of(self._started) != restart_settings_of(new):
            return resources.webhook_secrets, None
        return secrets, None if resources.stripe is None else read_secret_key(new.billing.stripe, os.environ)

    def _replace_secrets(self, new: CollectorSettings) -> None:
        """Use the new secrets of settings that otherwise need a restart."""
        started = self._started
        if self._service.resources.database.uses(new.database):
            started = started.model_copy(update={"database": new.database})
        if self._pages is not None and started.pages is not None and new.pages is not None:
            pages = replace_secrets(started.pages, new.pages)
            if sign_in_settings_of(started) != sign_in_settings_of(new):  # The new secret may be for another issuer.
                pages = pages.model_copy(update={"client_secret": started.pages.client_secret})
            self._pages.use_secrets(pages)
            started = started.model_copy(update={"pages": pages})
        self._started = started


def restart_settings_of(settings: CollectorSettings) -> object:
    """Return the billing settings that need a restart: the connection to Stripe, and whether Stripe is used."""
    billing = settings.billing
    return None if billing is None else (billing.stripe, billing.collection, billing.mode == "off")


def sign_in_settings_of(settings: CollectorSettings) -> object:
    """Return the settings of `operators` that need a restart, because pages sign operators in with them."""
    operators = settings.operators
    return None if operators is None else (operators.issuer, operators.second_factor.acr)
