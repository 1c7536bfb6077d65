"""Outgoing calls of a site: its trusted authorities, and its proxy for outgoing HTTP."""

import re
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.base.outgoing_proxy import set_proxy
from edgeproxy.base.trust import set_trust
from edgeproxy.config.field_types import File
from edgeproxy.config.forms import build_any_of, build_text, written
from edgeproxy.config.parsers import read_list
from edgeproxy.config.part import Part
from edgeproxy.config.units import PatternText, value_error
from edgeproxy.config.url_secrets import read_secret_url

A_PROXY = "http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT"
AN_EXCEPTION = "a host, a domain such as .example.com, or a network such as 10.0.0.0/8"
EXCEPTION = re.compile(r"\*|[A-Za-z0-9.:/\[\]_-]{1,255}")
PROXY = build_text("proxy URL", r"https?://.+", "http://proxy.example.com:3128")


@written(PROXY)
def read_proxy_url(value: object) -> str:
    """Read the URL of an outgoing proxy. Errors do not show it, because it may have a password."""
    url = read_secret_url(value, A_PROXY)
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise value_error("is not the URL of a proxy", A_PROXY)
    return url


read_exception = PatternText(
    "host, domain or network", EXCEPTION, "{} is no host, domain or network", AN_EXCEPTION, (".example.com",)
)
"""Reads a destination of calls without the proxy."""


@written(lambda inner: build_any_of(PROXY, inner), lambda proxy: proxy.url)
def read_proxy(value: object) -> object:
    """Read a proxy: its URL, or a mapping with it."""
    return {"url": value} if isinstance(value, str) else value


class Trust(Part):
    """Authorities of servers, for [all outgoing TLS connections](outgoing-calls.md#trust)."""

    files: Annotated[tuple[File, ...], BeforeValidator(read_list)] = Field(
        default=(),
        description="PEM files with authorities that are trusted in addition to the system's, or to those of "
        "`SSL_CERT_FILE` and `SSL_CERT_DIR`. If a file is replaced, new connections use its new content.",
    )


class ProxySettings(Part):
    """The proxy of [calls that leave the site](outgoing-calls.md#the-sites-proxy)."""

    url: Annotated[str, BeforeValidator(read_proxy_url)] = Field(
        repr=False,
        description="`http://HOST:PORT` of the proxy, with `USER:PASSWORD@` if the proxy needs it; take these from the "
        "environment.",
    )
    past: Annotated[tuple[Annotated[str, BeforeValidator(read_exception)], ...], BeforeValidator(read_list)] = Field(
        default=(),
        description="Hosts, domains and networks that are reached directly, as in `NO_PROXY`. Loopback addresses "
        "always are.",
    )


TRUST = "Authorities that are trusted in addition to the system's."
PROXY_DESCRIPTION = (
    "Proxy for HTTP calls that leave the site. By default the variables `HTTPS_PROXY`, `HTTP_PROXY` and "
    "`NO_PROXY` decide."
)
ProxyField = Annotated[ProxySettings, BeforeValidator(read_proxy)]


class HasOutgoing(Protocol):
    """Settings with these parts."""

    @property
    def trust(self) -> Trust: ...
    @property
    def proxy(self) -> ProxySettings | None: ...


def use_outgoing(settings: HasOutgoing) -> None:
    """Apply these settings to the outgoing calls of this process. A reload does so once nothing can fail any more."""
    set_trust(settings.trust.files)
    if settings.proxy is None:
        set_proxy(None, ())
    else:
        set_proxy(settings.proxy.url, settings.proxy.past)
