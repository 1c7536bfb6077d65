"""Pages in the collector's service: their construction and their background tasks."""

import sys
import time

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.api.app import Service
from edgeproxy.collector.api.code_flow import Client, CodeFlow
from edgeproxy.collector.api.internal_client import Inside
from edgeproxy.collector.api.sign_in_policy import CustomerContactSignIn, OperatorSignIn
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.pages import (
    console,
    credits,
    customer_credits,
    customer_plan,
    get_started,
    invoices,
    missing,
    money,
    own_data,
    plans,
    portal,
    price_changes,
    team,
    tokens,
    top_ups,
    usage_explorer,
)
from edgeproxy.collector.pages.api_docs import build_reference
from edgeproxy.collector.pages.brand_files import BrandFiles
from edgeproxy.collector.pages.checks import RegionChecks
from edgeproxy.collector.pages.expired_rows import ExpiredRowsJob
from edgeproxy.collector.pages.incident_history import IncidentHistory
from edgeproxy.collector.pages.maintenance_clock import MaintenanceClock
from edgeproxy.collector.pages.outgoing_mails import HourlyMails, OutgoingMails
from edgeproxy.collector.pages.serving import add_pages
from edgeproxy.collector.pages.sign_in import SignInPages
from edgeproxy.collector.pages.sign_up import SignUpPages
from edgeproxy.collector.pages.site import Page, Site
from edgeproxy.collector.pages.status import StatusPages
from edgeproxy.collector.pages.subscriptions import QUESTIONS_MAX, StatusMails, Subscriptions
from edgeproxy.collector.pages.urls import build_url, select_listener
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.collector.customer_api import load_description
from edgeproxy.config.collector.listeners import PAGE_GROUPS, CollectorListener
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.settings import CollectorSettings


class PagesService:
    """The pages of a collector, on each listener that serves any."""

    def __init__(self, database: Database, settings: CollectorSettings, service: Service) -> None:
        assert settings.pages is not None
        self._database = database
        self._settings = settings
        self._pages = pages = settings.pages
        self._service = service
        self._inside = Inside(service)
        self._operators = self._customers = None
        if (known := settings.operators) is not None:
            assert pages.client is not None
            client = Client(known.issuer, pages.client, pages.client_secret, acr=known.second_factor.acr)
            self._operators = CodeFlow(client, OperatorSignIn(service.callers, pages.client).judge)
        if (theirs := pages.customers) is not None:
            client = Client(theirs.issuer, theirs.client, theirs.client_secret, "openid email")
            self._customers = CodeFlow(client, CustomerContactSignIn(theirs).judge)
        self._reference = None
        if pages.api is not None and pages.api.openapi is not None:
            self._reference = build_reference(load_description(pages.api.openapi))
        self._checks = RegionChecks(database, pages.status, time.time())
        self._mails = OutgoingMails()
        self._questions = HourlyMails("status_mails", QUESTIONS_MAX)
        self._sign_ups = None if pages.sign_up is None else HourlyMails("sign_up_mails", pages.sign_up.per_hour)
        hourly = [self._questions] if self._sign_ups is None else [self._questions, self._sign_ups]
        service.resources.metrics.goods += [self._mails.good, *(mails.good for mails in hourly)]
        self._brand = BrandFiles(pages.brand)
        url = build_url(settings, select_listener(settings, "status"))
        self._sites: list[Site] = []
        self._status_mails: StatusMails | None = None
        self._status = StatusPages(database, pages.status, url, self._checks, self._brand)
        self._consoles: list[tuple[CollectorListener, SignInPages]] = []
        """The listeners that serve the console, with their sign-in pages for operators."""

    def add_to(self, application: web.Application, listener: CollectorListener) -> None:
        """Add the pages of a listener to its endpoints."""
        groups = listener.groups & PAGE_GROUPS
        if not groups:
            return
        service, url = self._service, build_url(self._settings, listener)
        site = Site(
            *(self._database, self._pages, url, self._inside, lambda: service.settings),
            *(lambda: service.billing_message, groups),
        )
        self._sites.append(site)
        site.reference, site.brand = self._reference, self._brand
        site.mails = self._mails
        site.has_issuer = self._operators is not None
        sign_in = SignInPages(site, self._operators, self._customers)
        signing_up = []
        if self._pages.sign_up is not None and self._sign_ups is not None:
            sign_up = SignUpPages(site, sign_in, self._pages.sign_up, self._sign_ups)
            sign_in.sign_up, signing_up = sign_up.by_issuer, sign_up.pages()
        subscribing = Subscriptions(site, self._questions).pages() if self._pages.status.subscribe else []
        add_pages(
            site,
            application,
            [
                *(*sign_in.pages(), *signing_up, *subscribing, *IncidentHistory(site).pages()),
                *(*list_signed_in_pages(sells=self._settings.billing is not None), *missing.list_pages()),
            ],
        )
        application.middlewares.append(missing.build_middleware(site))
        if "status" in groups:
            self._status.add_to(application)
        if "console" in groups:
            self._consoles.append((listener, sign_in))

    def use_secrets(self, settings: Pages) -> None:
        """Use these settings, which differ from the serving ones in secrets alone."""
        self._pages = settings
        for each in (*self._sites, self._status_mails):
            if each is not None:
                each.settings = settings
        if self._operators is not None:
            self._operators.client = self._operators.client._replace(secret=settings.client_secret)
        if self._customers is not None and settings.customers is not None:
            self._customers.client = self._customers.client._replace(secret=settings.customers.client_secret)

    async def begin(self, tasks: Tasks) -> None:
        """Start background tasks. Without an issuer, print the sign-in link for the first operator."""
        tasks.start("checks", self._checks.run())
        tasks.start("status", self._status.run())
        tasks.start("expired sign-ins", ExpiredRowsJob(self._database).run())
        tasks.start("maintenance clock", MaintenanceClock(self._database).run())
        if self._pages.status.subscribe:
            url = build_url(self._settings, select_listener(self._settings, "status"))
            self._status_mails = StatusMails(self._database, self._pages, url)
            tasks.start("status mails", self._status_mails.run())
        if self._settings.operators is not None or not self._consoles:
            return
        if not all(is_loopback(listener.address.host) for listener, _ in self._consoles):
            log.get_logger().warning(
                "no operator can sign in: write operators, or serve the console on this host alone"
            )
            return
        _, sign_in = self._consoles[0]
        # Not in the log: the link makes its holder an admin, and others may read the log.
        print(
            f"edgeproxy: operators sign in, once and within an hour, at {await sign_in.first_link()}",
            file=sys.stderr,
            flush=True,
        )


def list_signed_in_pages(*, sells: bool) -> list[Page]:
    """List all pages and forms for signed-in people. Pages about money are included if anything is sold."""
    groups = (plans, invoices, credits, customer_credits, top_ups, customer_plan, money, price_changes) if sells else ()
    sold = [page for group in groups for page in group.list_pages()]
    others = (console, tokens, portal, get_started, team, own_data, usage_explorer)
    return [*(page for group in others for page in group.list_pages()), *sold]
