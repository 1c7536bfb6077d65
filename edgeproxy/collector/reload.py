"""SIGHUP: the collector's file is read again, and settings that can change at run time are applied."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from edgeproxy.base import log
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.collector.alerts.delivery import AlertSender
from edgeproxy.collector.anomalies.job import AnomalyJob
from edgeproxy.collector.api.app import Service
from edgeproxy.collector.api.listener import Listeners
from edgeproxy.collector.billing.subscriptions.plan_versions import PlanEditedError
from edgeproxy.collector.database.database import CONNECTION_ERRORS
from edgeproxy.collector.database.periodic import run_guarded
from edgeproxy.collector.jobs.operator_alerts import OperatorAlerts
from edgeproxy.collector.jobs.publication import Publication
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.certificates import InvalidCertificateError
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorFile, CollectorSettings
from edgeproxy.config.part import FieldMark
from edgeproxy.config.problems import ConfigError
from edgeproxy.wire.directory_signatures import InvalidSigningKeyError

REFUSALS = (ConfigError, InvalidCertificateError, InvalidSigningKeyError, PlanEditedError)
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
    ) -> None:
        """`record` records the plans on sale. It raises PlanEditedError."""
        self._started = settings
        self._service = service
        self._names = names
        self._listeners = listeners
        self._metrics = metrics
        self._alerting = alerting
        self._anomalies = anomalies
        self._record = record
        self._publication = publication
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
        """Apply a file completely or not at all. Certificates are read again in any case."""
        try:
            new = await run_in_thread("read the configuration", lambda: load_collector(file, os.environ))
            publisher = self._publication.prepare(new.directory)
            await self._record(new)
            await self._listeners.use(new.tls)
        except (*REFUSALS, *CONNECTION_ERRORS) as error:
            self._metrics.config_ok.set(0)
            self._log.error("the configuration was refused; what served before serves on", why=str(error))
            return
        self._service.apply_settings(new)
        self._names.set_known(new.customers, new.meters)
        for one in self._alerting:
            one.use(new.alerts)
        self._anomalies.use(new)
        await self._publication.begin(publisher)
        self._metrics.config_ok.set(1)
        fixed = CollectorFile.list_marked(FieldMark.RESTART)
        waiting = sorted(name for name in fixed if getattr(self._started, name) != getattr(new, name))
        if restart_settings_of(self._started) != restart_settings_of(new):
            waiting.append("billing")
        self._log.info("reloaded", sha256=new.sha256[:12], needs_restart=waiting)


def restart_settings_of(settings: CollectorSettings) -> object:
    """Return the billing settings that need a restart: the connection to Stripe, and whether Stripe is used."""
    billing = settings.billing
    return None if billing is None else (billing.stripe, billing.collection, billing.mode == "off")
