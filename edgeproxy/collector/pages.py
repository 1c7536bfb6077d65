"""Pages in the collector's service: what they are given, and what runs for them."""

import sys

from aiohttp import web

from edgeproxy import log
from edgeproxy.collector.app import Service
from edgeproxy.collector.code_flow import Client, CodeFlow
from edgeproxy.collector.inside import Inside
from edgeproxy.collector.judges import OfCustomers, OfOperators
from edgeproxy.config.collector import Settings
from edgeproxy.config.parsers import is_loopback
from edgeproxy.database.database import Database
from edgeproxy.pages import console, credits, money, plans, portal, tokens
from edgeproxy.pages.checks import Checks
from edgeproxy.pages.forms import origin_of
from edgeproxy.pages.sign_in import SignIn
from edgeproxy.pages.site import Page, Site
from edgeproxy.pages.status import Status
from edgeproxy.tasks import Tasks


class PagesService:
    """The pages of a collector whose settings have some."""

    def __init__(self, database: Database, settings: Settings, service: Service) -> None:
        assert settings.pages is not None
        self._settings = settings
        pages, url = settings.pages, url_of(settings)
        inside = Inside(service, service.endpoints)
        self.site = Site(database, pages, url, inside, lambda: service.settings, lambda: service.billing_message)
        issuer = None
        if (known := settings.operators) is not None:
            assert pages.client is not None
            client = Client(known.issuer, pages.client, pages.client_secret, acr=known.second_factor.acr)
            issuer = CodeFlow(client, OfOperators(service.callers, pages.client).judge)
            self.site.has_issuer = True
        customers = None
        if (theirs := pages.customers) is not None:
            client = Client(theirs.issuer, theirs.client, theirs.client_secret, "openid email")
            customers = CodeFlow(client, OfCustomers(theirs).judge)
        self._sign_in = SignIn(self.site, issuer, customers)
        self._checks = Checks(database, pages.status)
        self._status = Status(database, pages.status, url, self._checks)

    def add_to(self, application: web.Application) -> None:
        """Serve them beside the endpoints."""
        self.site.add_to(application, [*self._sign_in.pages(), *signed_in(sells=self._settings.billing is not None)])
        self._status.add_to(application)

    async def begin(self, tasks: Tasks) -> None:
        """Begin what runs for them, and print the link for the first operator where there is no issuer."""
        tasks.start("checks", self._checks.run())
        tasks.start("status", self._status.run())
        if self._settings.operators is not None:
            return
        if not is_loopback(self._settings.listen.host):
            log.get().warning("no operator can sign in: write operators, or listen on this host alone")
            return
        # Not in the log, which others may read: who has it is an admin.
        print(
            f"edgeproxy: operators sign in, once and within an hour, at {await self._sign_in.first_link()}",
            file=sys.stderr,
            flush=True,
        )


def signed_in(*, sells: bool) -> list[Page]:
    """List all pages and forms for who has signed in; those about money where anything is sold."""
    sold = [*plans.pages(), *credits.pages(), *money.pages()] if sells else []
    return [*console.pages(), *tokens.pages(), *portal.pages(), *sold]


def url_of(settings: Settings) -> str:
    """Return how browsers reach the pages, without a slash at its end."""
    assert settings.pages is not None
    return origin_of(settings.pages.url or f"{'https' if settings.tls else 'http'}://{settings.listen}")
