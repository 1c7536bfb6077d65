"""The URLs of the pages for browsers. Pure."""

from edgeproxy.collector.alerts.message import ServiceSite
from edgeproxy.collector.pages.forms import normalize_origin
from edgeproxy.config.collector.listeners import CollectorListener
from edgeproxy.config.collector.settings import CollectorSettings


def select_listener(settings: CollectorSettings, group: str) -> CollectorListener:
    """Return the first listener that serves a group of pages, or else the first listener."""
    return next((one for one in settings.listen if group in one.groups), settings.listen[0])


def describe_site(settings: CollectorSettings) -> ServiceSite:
    """Return the service name and page URLs for mails of alerts."""
    if settings.pages is None:
        return ServiceSite("edgeproxy")
    served = {group for listener in settings.listen for group in listener.groups}
    urls = {
        group: build_url(settings, select_listener(settings, group)) if group in served else ""
        for group in ("console", "portal")
    }
    return ServiceSite(settings.pages.status.name, urls["console"], urls["portal"])


def build_url(settings: CollectorSettings, listener: CollectorListener) -> str:
    """Return the URL of a listener's pages for browsers, without a trailing slash. No browser opens http://0.0.0.0/."""
    assert settings.pages is not None
    scheme = "https" if listener.resolve_tls(settings.tls) else "http"
    return normalize_origin(listener.url or settings.pages.url or f"{scheme}://{listener.address.reachable}")
