"""Warnings of `check` about a collector.yaml: settings that are valid but probably not intended. Pure."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from edgeproxy.config.addresses import is_local_url, is_loopback
from edgeproxy.config.collector.alerts import is_in_clear
from edgeproxy.config.collector.listeners import GROUPS, PAGE_GROUPS
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import MEASURES, SPLIT_ESTIMATES
from edgeproxy.config.warnings import DEMONSTRATION, list_tracing_warnings, list_trusted_proxies_warnings

NAMES_MAX = 3
"""Maximum customers that a warning names."""
VERIFIED = ("verify-full", "verify-ca")
"""The values of PostgreSQL's `sslmode` that verify the server."""


def list_collector_warnings(settings: CollectorSettings) -> Iterator[str]:
    """Yield all warnings about a collector."""
    for index, token in enumerate(settings.tokens):
        if not DEMONSTRATION.isdisjoint(token.sha256):
            yield f"tokens.{index}: is a token of the demonstration, which everybody knows: make one of your own"
    for index, key in enumerate(settings.keys):
        if key.sha256 in DEMONSTRATION:
            yield f"keys.{index}: is a key of the demonstration, which everybody knows: make one of your own"
    yield from list_tracing_warnings(settings.tracing)
    if settings.customers and settings.plans:
        names = ", ".join(sorted(settings.customers)[:NAMES_MAX])
        yield (
            f"customers: {names}: an edge that has them in files too holds them to these, whatever plan they take: "
            "move them into the database with `edgeproxy import`"
        )
    database = urlsplit(settings.database)
    if database.scheme == "postgresql" and not is_local_url(f"http://{database.netloc.rpartition('@')[2]}"):
        mode = parse_qs(database.query).get("sslmode", ["prefer"])[-1]
        if mode not in VERIFIED:
            yield (
                f"database: with sslmode={mode} anybody on the way can answer in PostgreSQL's place: "
                "write ?sslmode=verify-full"
            )
    yield from _list_meter_warnings(settings)
    yield from _list_estimate_warnings(settings)
    yield from _list_privacy_warnings(settings)
    yield from list_trusted_proxies_warnings(settings.trusted_proxies)
    yield from _list_listener_warnings(settings)
    alerts = settings.alerts
    named = {alerts.customers, *alerts.routes.page, *alerts.routes.warn, *alerts.routes.info}
    for name, channel in alerts.channels.items():
        if channel.alertmanager is not None and is_in_clear(channel.alertmanager):
            yield (
                f"alerts.channels.{name}.alertmanager: has no TLS: names of customers and what is wrong can be read on "
                "the way, and others can send alerts there: write https:// where a proxy before it has TLS"
            )
    for name in alerts.channels.keys() - named:
        yield f"alerts.channels.{name}: no route names it: it gets nothing but pages that nobody else has taken"


def _list_meter_warnings(settings: CollectorSettings) -> Iterator[str]:
    """Yield priced values that an edge may merge."""
    priced: dict[tuple[str, str], dict[str, None]] = {}
    for plan in settings.plans.values():
        for name, price in plan.meters.items():
            meter = settings.meters.get(name)
            if price.by is None or meter is None or MEASURES[meter.count].is_of_services:
                continue
            named = meter.dimensions[price.by.dimension].named
            lacking = [value for value in price.by.prices if value not in named]
            priced.setdefault((name, price.by.dimension), {}).update(dict.fromkeys(lacking))
    for (name, by), values in priced.items():
        if values:
            yield (
                f"meters.{name}.dimensions.{by}: plans price {', '.join([*values][:NAMES_MAX])}, which an edge counts "
                "as ~other once others have taken all places: name them in `named`, here and in the edges' meters"
            )


def _list_estimate_warnings(settings: CollectorSettings) -> Iterator[str]:
    """Yield meters whose estimates are charged like stated numbers and cannot be told from them."""
    for name, meter in settings.meters.items():
        version = next((version for version, plan in settings.plans.items() if name in plan.meters), None)
        if meter.hides_estimates and version is not None:
            yield f"meters.{name}: {version} charges estimates that nobody can tell: {SPLIT_ESTIMATES}"


def _list_privacy_warnings(settings: CollectorSettings) -> Iterator[str]:
    """Yield a warning if a restore of the database also restores the list of erasures."""
    database = urlsplit(settings.database)
    erasures = None if settings.privacy is None else settings.privacy.erasures
    if erasures is not None and database.scheme == "sqlite":
        folder = Path(os.path.abspath(unquote(database.path[1:]))).parent
        if folder in Path(os.path.abspath(erasures)).parents:
            yield (
                "privacy.erasures: lies beside the database, and goes back with it where the folder is restored: "
                "write a file elsewhere"
            )


def _list_listener_warnings(settings: CollectorSettings) -> Iterator[str]:
    """Yield listeners reached without TLS, and groups that no listener serves."""
    served: set[str] = set()
    ships = [one for one in settings.listen if "edges" in one.groups]
    certified = [ship.resolve_tls(settings.tls) for ship in ships]
    for index, listener in enumerate(settings.listen):
        where = f"listen.{index}"
        served |= listener.groups
        tls = listener.resolve_tls(settings.tls)
        has_pages = settings.pages is not None and listener.groups & (PAGE_GROUPS - {"status"})
        url = listener.url or (settings.pages and settings.pages.url)
        if has_pages and url is None and tls is None and not is_loopback(listener.address.host):
            yield "pages: browsers reach them at another URL, which mails and sign-in need: write url: https://HOST"
        if settings.pages is None and set(listener.serve or ()) & (PAGE_GROUPS | {"pages"}):
            yield f"{where}.serve: has pages, and there are none: write pages: {{}}"
    if any(tls is not None and tls.client_ca is not None for tls in certified):
        for listener, tls in zip(ships, certified, strict=True):
            if tls is None or tls.client_ca is None:
                yield f"listen: edges ship at {listener.address} without the certificate that others ask them for"
    needless = {"webhooks"} if settings.billing is None or settings.billing.mode == "off" else set()
    needless |= PAGE_GROUPS if settings.pages is None else set()
    for group in sorted(GROUPS - served - needless):
        yield f"listen: no listener serves {group}: write it in the serve of one, if anybody is to reach it"
