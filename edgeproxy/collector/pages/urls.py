"""The URLs at which browsers reach the pages. Pure."""

from edgeproxy.collector.alerts.message import ServiceSite
from edgeproxy.collector.pages.forms import normalize_origin
from edgeproxy.config.collector.listeners import CollectorListener
from edgeproxy.config.collector.settings import CollectorSettings


def select_listener(settings: CollectorSettings, group: str) -> CollectorListener:
    """Return the first listener that serves a group of pages; the first one of all where none does."""
    return next((one for one in settings.listen if group in one.groups), settings.listen[0])


def describe_site(settings: CollectorSettings) -> ServiceSite:
    """Return the service that mails alerts, with the URLs of the pages that it has."""
    if settings.pages is None:
        return ServiceSite("edgeproxy")
    served = {group for listener in settings.listen for group in listener.groups}
    urls = {
        group: build_url(settings, select_listener(settings, group)) if group in served else ""
        for group in ("console", "portal")
    }
    return ServiceSite(settings.pages.status.name, urls["console"], urls["portal"])


def build_url(settings: CollectorSettings, listener: CollectorListener) -> str:
    """Return how browsers reach the pages of a listener, without a slash at its end."""
    assert settings.pages is not None
    scheme = "https" if listener.resolve_tls(settings.tls) else "http"
    return normalize_origin(listener.url or settings.pages.url or f"{scheme}://{listener.address}")
