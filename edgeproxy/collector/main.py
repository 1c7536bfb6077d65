"""The collector's process: from loading its settings to its drained end."""

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.base import event_loop, log
from edgeproxy.base.core_dumps import forbid_core_dumps
from edgeproxy.base.descriptor_limit import raise_descriptor_limit
from edgeproxy.base.exit_deadline import end_after_signals, end_within
from edgeproxy.base.plural import format_count
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.web_listener import Bounds, WebListener
from edgeproxy.collector.accounts import audit, contacts, customers, notices
from edgeproxy.collector.accounts.end_users import is_hashing
from edgeproxy.collector.accounts.last_used import WRITE_SECONDS
from edgeproxy.collector.accounts.pseudonyms import require_pseudonyms
from edgeproxy.collector.accounts.shown_names import fetch_names as fetch_customer_names
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.delivery import AlertSender
from edgeproxy.collector.anomalies.job import AnomalyJob
from edgeproxy.collector.api.app import Service
from edgeproxy.collector.api.group import Resources
from edgeproxy.collector.api.listener import Listener, Listeners
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.credits.top_up_purchases import TopUpPurchases
from edgeproxy.collector.billing.invoices.invoiced_usage import find_invoiced
from edgeproxy.collector.billing.jobs.credits import CreditsJob
from edgeproxy.collector.billing.jobs.ended_books import destroy_ended_keys
from edgeproxy.collector.billing.jobs.meter_export import MeterExportJob
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.journal.verification import JournalTamperedError, verify_journal
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe.client import Stripe, StripeConfigurationError, read_webhook_secrets
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, UnusableDatabaseError, format_reason
from edgeproxy.collector.database.periodic import Job, JobLog, repeat, report_runs, run_guarded
from edgeproxy.collector.encryption.keyring import Keyring, open_keyring
from edgeproxy.collector.events.event_writer import EventWriter
from edgeproxy.collector.jobs.billing import BillingJobs, build_processor
from edgeproxy.collector.jobs.encryption import start_encryption_jobs
from edgeproxy.collector.jobs.end_users import start_end_user_job
from edgeproxy.collector.jobs.key_rotation import KeyRotationJob
from edgeproxy.collector.jobs.limit_events import LimitEvents
from edgeproxy.collector.jobs.limit_raises import LimitRaiseJob
from edgeproxy.collector.jobs.maintenance import MaintenanceJobs
from edgeproxy.collector.jobs.operator_alerts import OperatorAlerts
from edgeproxy.collector.jobs.publication import Publication
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.collector.jobs.webhooks import WebhookJobs
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.batch_writer import BatchWriter
from edgeproxy.collector.ledger.chain_audit import BrokenChainError
from edgeproxy.collector.ledger.known_names import REMEMBERED_MAX, KnownNames
from edgeproxy.collector.ledger.verification import verify_ledger
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.pages.urls import describe_site
from edgeproxy.collector.privacy.erasure_list import InvalidErasureListError, open_list, replay_erasures
from edgeproxy.collector.reload import Reloader
from edgeproxy.config.addresses import Address
from edgeproxy.config.certificates import InvalidCertificateError
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.tracing.recorder import SpanRecorder
from edgeproxy.wire.directory_signatures import InvalidSigningKeyError

STOPPING = (signal.SIGTERM, signal.SIGINT)
RECORD_SECONDS = 60.0
"""Seconds between two writes of data gathered for the audit log."""
ROW_SECURITY_SECONDS = 60.0
"""Seconds between two attempts to enable row-level security if it is not in force."""
CONNECTIONS = Bounds(all=2000, per_address=500)
DRAIN_SECONDS = 30.0
"""Seconds that pending requests have after a request to stop."""
END_SECONDS = 38.0
"""Seconds until the process ends even if something hangs. Service managers wait for 40 s."""
LAST_SECONDS = 5.0
"""Seconds of these that remain after all answers and writes, because a successor waits for the port."""


class ListenError(Exception):
    """The collector cannot listen on an address. The message is a sentence for the person who started it."""


def run(settings: CollectorSettings, file: Path) -> int:
    """Run the collector until told to stop. Return 0 after a drain, or 2 if an address or the database is unusable.

    `file` is the source of the settings. SIGHUP reads it again.
    """
    log.configure("collector")
    raise_descriptor_limit()
    forbid_core_dumps()
    try:
        return event_loop.run(serve(settings, file, partial(end_within, LAST_SECONDS)))
    except (
        ListenError,
        UnusableDatabaseError,
        InvalidCertificateError,
        InvalidSigningKeyError,
        StripeConfigurationError,
        plan_versions.PlanEditedError,
        InvalidErasureListError,
    ) as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 2


BREAKS = (BrokenChainError, audit.AuditTamperedError, JournalTamperedError)
"""The errors of a database with an inconsistency."""


async def verify_database(database: Database) -> str:
    """Return a summary of a consistent database. Raises one of BREAKS at the first inconsistency."""
    sums = await verify_ledger(database)
    async with database.reading(whole=True) as connection:
        entries = await audit.verify_chain(connection)
        booked = await verify_journal(connection)
    credits = f"; {format_count(booked, 'credit transaction')}" if booked else ""
    return f"{sums}; {format_count(entries, 'audit record')}{credits}"


def check_ledger(settings: CollectorSettings) -> tuple[int, str]:
    """Check the consistency of the database. A collector may be running.

    Return 0 with a summary, 1 with the first inconsistency, or 2 with the reason why the database is unusable.
    """

    async def look() -> str:
        database = await Database.connect(settings.database, as_it_is=True)
        try:
            return await verify_database(database)
        finally:
            await database.close()

    try:
        return 0, event_loop.run(look())
    except BREAKS as error:
        return 1, str(error)
    except UnusableDatabaseError as error:
        return 2, str(error)
    except CONNECTION_ERRORS as error:
        return 2, f"the database cannot be read: {format_reason(error)}"


async def serve(settings: CollectorSettings, file: Path, stopped: Callable[[], None] = lambda: None) -> int:
    """Serve as `run` does, within an event loop. Raises the errors that `run` catches.

    `stopped` is called after all answers and writes, before the database is closed.
    """
    stop, reload_requested, is_serving = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop, start = asyncio.get_running_loop(), asyncio.current_task()
    assert start is not None

    def request_stop() -> None:
        """Drain, or abandon the start: it may wait for a lock, a database or a key service for any time."""
        if not (stop.is_set() or is_serving.is_set()):
            start.cancel()
        stop.set()

    for number in STOPPING:
        loop.add_signal_handler(number, request_stop)
    loop.add_signal_handler(signal.SIGHUP, reload_requested.set)
    end_after_signals(STOPPING, lambda: END_SECONDS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    with ExitStack() as bound:
        bound.enter_context(_given_up_start(stop, is_serving))
        listening = [bound.enter_context(closing(bind_address(listener.address))) for listener in settings.listen]
        database = await Database.connect(settings.database)
        try:
            keyring = await open_keyring(database, settings.encryption)
            await collect(settings, file, database, listening, stop, reload_requested, is_serving, keyring)
            stopped()
        finally:
            await database.close()
    return 0


@contextmanager
def _given_up_start(stop: asyncio.Event, is_serving: asyncio.Event) -> Iterator[None]:
    """End the block if `stop` has cancelled it before the collector served."""
    try:
        yield
    except asyncio.CancelledError:
        if is_serving.is_set() or not stop.is_set():
            raise
        log.get_logger().info("collector stopped before it served")


async def collect(
    settings: CollectorSettings,
    file: Path,
    database: Database,
    listening: Sequence[socket.socket],
    stop: asyncio.Event,
    reload_requested: asyncio.Event,
    is_serving: asyncio.Event,
    keyring: Keyring | None,
) -> None:
    """Answer on these sockets, one per listener, until `stop` is set. Read `file` again on request.

    `is_serving` is set once the start is complete.
    """
    metrics, tasks, logger, recorder = Metrics(), Tasks(), log.get_logger(), SpanRecorder(settings.tracing)
    recorder.begin()
    metrics.spans = recorder.exporter
    job_log = JobLog(metrics.record_job)
    report_runs(job_log)
    if not database.is_sqlite:
        metrics.row_security = lambda: (
            database.row_security_gap is None and (database.ownership is None or database.ownership.altered is None)
        )
    if database.row_security_gap is not None:
        logger.warning("row-level security does not hold customers apart", why=database.row_security_gap)
    if database.ownership is not None and (weakness := database.ownership.weakness) is not None:
        # A login that owns the tables is a choice. A login that could become the owner is a fault.
        level = logger.info if database.ownership.has_ownership else logger.warning
        level("the collector could change its own tables", why=weakness)
    if database.ownership is not None and database.ownership.altered is not None:
        logger.error("somebody has altered the settings of the collector's login", why=database.ownership.altered)

    async def find_customers(names: Iterable[str]) -> set[str]:
        try:
            async with database.reading() as connection:
                return await customers.filter_existing_names(connection, names)
        except CONNECTION_ERRORS as error:
            logger.error("customers could not be looked up, and are looked up again later", why=format_reason(error))
            return set()

    async def raise_alert(alert: Alert) -> None:
        async with database.writing() as connection:
            await raise_once(connection, alert)

    names = KnownNames(settings.customers, settings.meters, metrics, find_customers, raise_alert)
    if settings.billing is not None:
        await record_plans(settings, database)
    await require_pseudonyms(database, are_on=customers.has_pseudonyms(settings))
    if (erasures := open_list(settings.privacy)) is not None:
        await replay_erasures(database, erasures)
    await destroy_ended_keys(database, settings.retention.invoices, time.time())
    stripe = Stripe(settings.billing.stripe) if settings.billing and settings.billing.mode != "off" else None
    async with database.reading() as connection:
        used = await queries.fetch_names(connection, REMEMBERED_MAX + len(settings.customers))
    await names.record_names(*used)
    quota_watch = QuotaMonitor(database, metrics)
    ingest = BatchWriter(database, names, metrics, quota_watch.counted)
    settling = tasks.start("ingest", ingest.run())
    intake = EventWriter(
        database, names, metrics, quota_watch.counted, quota_watch.find_refused_readings, find_invoiced
    )
    counting = tasks.start("events", intake.run())
    processor = (
        None
        if stripe is None
        else build_processor(settings, database, stripe, metrics.webhook_seconds.observe, metrics.purchased)
    )
    resources = Resources(database, metrics, settings, names, ingest, intake, quota_watch, None, stripe, processor)
    resources.job_log, resources.keyring = job_log, keyring
    if settings.billing is not None:
        resources.webhook_secrets = read_webhook_secrets(settings.billing.stripe)
    publication = Publication(database, quota_watch, resources.set_publisher)
    publisher = publication.prepare(settings.directory)
    service = Service(resources)

    def tell(now: Charging) -> None:
        service.billing_message = now.message

    pages = None
    if settings.pages is not None:
        from edgeproxy.collector.pages_service import PagesService  # Templates and locales, which no other part needs.

        pages = PagesService(database, settings, service)
    listeners = Listeners(
        [
            Listener(listener, bound, WebListener(CONNECTIONS, share=len(listening)))
            for listener, bound in zip(settings.listen, listening, strict=True)
        ]
    )
    async with listeners.changing(settings.tls):
        pass
    runners = []
    for listener in listeners.all:
        application = service.build_application(listener)
        if pages is not None:
            pages.add_to(application, listener.settings)
        runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=DRAIN_SECONDS,
            auto_decompress=False,  # The collector decompresses bodies itself, within a bound (arrival.py).
        )
        await runner.setup()
        runners.append(runner)
    for listener, runner in zip(listeners.all, runners, strict=True):
        listener.accept(runner, lambda: service.settings.trusted_proxies)
    metrics.expiry = listeners.expiry
    # Objects created so far live as long as the process. Objects of batches become garbage right after them. Scanning
    # the former again and again took a third of the CPU. Collecting 100,000 objects at once took up to 290 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)
    resources.unready = None
    is_serving.set()
    where = ", ".join(str(address_of(bound)) for bound in listening)
    logger.info("collector serving", version=__version__, listen=where, database=database.name)
    tasks.start("upkeep", MaintenanceJobs(database, settings.retention, metrics, erasures).run())
    tasks.start("limit raises", LimitRaiseJob(database, metrics).run())
    tasks.start("key rotation", KeyRotationJob(database, metrics, lambda: service.settings).run())
    tasks.start("certificates", listeners.watch())
    if keyring is not None:
        start_encryption_jobs(tasks, database, keyring)
    if is_hashing(settings):
        start_end_user_job(tasks, database)
    watch, limited_log = OperatorAlerts(database, settings.alerts, listeners.expiry), log.RateLimitedLog(60.0)
    recipients, site = contacts.fetch_alert_recipients, describe_site(settings)
    delivery = AlertSender(database, settings.alerts, metrics, recipients, site, fetch_customer_names, notices.CONTACTS)
    tasks.start("watch", watch.run())
    tasks.start("alerts", delivery.run())
    webhooks = WebhookJobs(database, lambda: service.settings.webhooks, metrics)
    tasks.start("webhooks", webhooks.sender.run())
    tasks.start("old webhooks", webhooks.run_retention())
    tasks.start("limit events", LimitEvents(database, lambda: service.settings).run())
    anomalies = AnomalyJob(database, settings)
    tasks.start("anomalies", anomalies.run())
    tasks.start("quotas", quota_watch.run())
    tasks.start("all quotas", quota_watch.run_rounds())
    await publication.begin(publisher)
    if stripe is not None:
        assert processor is not None
        closing = PeriodCloseJob(database, stripe, lambda: service.settings, processor.complete)
        tasks.start("billing", closing.run())
    exports = None if stripe is None else MeterExportJob(database, stripe, lambda: service.settings, metrics)
    BillingJobs(database, lambda: service.settings, tell, service.response_counts, metrics.took).start(
        tasks, stripe, processor, exports
    )
    refunds = None if stripe is None else RefundSender(database, stripe)
    top_ups = None if stripe is None else TopUpPurchases(database, stripe)
    tasks.start("credits", CreditsJob(database, lambda: service.settings.billing, refunds, top_ups).run())
    writing_jobs = list_writing_jobs(service, watch)
    for job in writing_jobs:
        tasks.start(job.name, repeat(job, limited_log))
    if pages is not None:
        await pages.begin(tasks)
    tasks.start("names", names.run())
    tasks.start("row security", enforce_row_security(database))
    plans = partial(record_plans, database=database)
    reload = Reloader(
        *(settings, service, names, listeners, metrics, (watch, delivery), anomalies, plans, publication),
        *(recorder, pages),
    )
    tasks.start("reload", reload.watch(file, reload_requested))
    stopped = tasks.start("stop", stop.wait())
    # The collector is useless without its queues. It ends, so that the service manager notices.
    await asyncio.wait([stopped, settling, counting], return_when=asyncio.FIRST_COMPLETED)
    resources.unready = "draining"
    logger.info("collector draining", seconds=DRAIN_SECONDS)
    publication.release_waiters()
    quota_watch.end()
    await listeners.end()
    await asyncio.gather(*(runner.cleanup() for runner in runners))
    ingest.end()
    intake.end()
    await settling
    await counting
    for job in writing_jobs:
        await run_guarded(limited_log, job.failure, job.work())
    await service.close()
    await tasks.cancel()
    await publication.end()
    if stripe is not None:
        await stripe.close()
    await recorder.end()
    logger.info("collector stopped")


async def record_plans(settings: CollectorSettings, database: Database) -> None:
    """Record the plans on sale. Raises PlanEditedError."""
    async with database.writing() as connection:
        await plan_versions.record_plans(connection, settings.plans)


async def enforce_row_security(database: Database) -> None:
    """Try to enable row-level security at intervals while it is not in force, until cancelled."""

    async def enforce() -> None:
        if database.row_security_gap is not None:
            await database.enforce_row_security()
            if database.row_security_gap is None:
                log.get_logger().info("row-level security is in force")

    job = Job("row-security", ROW_SECURITY_SECONDS, "row-level security could not be put in force", enforce)
    await repeat(job, log.RateLimitedLog(60.0))


def list_writing_jobs(service: Service, watch: OperatorAlerts) -> tuple[Job, ...]:
    """Return the jobs that write data gathered in memory. `watch` is called with the number of denials."""
    resources = service.resources

    async def write_denials() -> None:
        await watch.denied(await service.denials.write(), time.time())

    changes = resources.allocation_changes
    return (
        Job("denials", RECORD_SECONDS, "denials could not be put on record", write_denials),
        Job("allocations", RECORD_SECONDS, "allocations could not be put on record", changes.write),
        Job("last-used", WRITE_SECONDS, "when keys were used could not be written", resources.last_used.write),
    )


def bind_address(address: Address) -> socket.socket:
    """Return a socket bound to this address. Raises ListenError."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(where)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from error
    return made


def address_of(listening: socket.socket) -> Address:
    """Return the bound address."""
    host, port = listening.getsockname()[:2]
    return Address(host, port)
