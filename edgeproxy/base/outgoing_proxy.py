"""The site's outgoing proxy, and which HTTP calls use it.

The setting `proxy` replaces the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY, which have their usual meaning. Calls
to loopback addresses never leave the host.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]


class OutgoingProxy(NamedTuple):
    """A proxy and its user."""

    url: str
    """`http://HOST:PORT`, without the user."""
    user: str | None
    password: str | None
    source: str = "of the setting proxy"
    """Where the proxy is set, for errors."""

    @property
    def title(self) -> str:
        """The proxy in errors, without its user: `the site's proxy http://HOST:PORT (of the setting proxy)`."""
        return f"the site's proxy {self.url} ({self.source})"

    @property
    def full_url(self) -> str:
        """The URL with user and password, for libraries that need it."""
        if self.user is None:
            return self.url
        who = f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}"
        return self.url.replace("://", f"://{who}@", 1)


class _Setting:
    def __init__(self) -> None:
        self.proxies: dict[str, str] | None = None
        """Proxies by scheme, and their exceptions under "no". None: use the variables of the environment."""


_setting = _Setting()


def set_proxy(url: str | None, past: Sequence[str]) -> None:
    """Use a proxy in the whole process from now on. None: use the variables of the environment.

    `past`: hosts, domains and networks for direct calls.
    """
    _setting.proxies = None if url is None else {"http": url, "https": url, "no": ",".join(past)}


def find_proxy(url: str) -> OutgoingProxy | None:
    """Return the proxy for calls of this URL. None: calls are direct."""
    parts = urlsplit(url)
    proxies = getproxies_environment() if _setting.proxies is None else _setting.proxies
    proxy = proxies.get(parts.scheme)
    if not proxy or not parts.hostname or _goes_past(parts.hostname, parts.port, proxies):
        return None
    scheme, _, rest = (proxy if "://" in proxy else f"http://{proxy}").partition("://")
    # Nothing checks a variable: a raw `/` or `#` in its password must not make the beginning a host that errors show.
    who, is_given, where = rest.rpartition("@")
    user, has_password, password = who.partition(":")
    return OutgoingProxy(
        f"{scheme}://{where.partition('/')[0]}",
        unquote(user) if is_given else None,
        unquote(password) if has_password else None,
        f"of {parts.scheme.upper()}_PROXY" if _setting.proxies is None else "of the setting proxy",
    )


def describe_way(url: str) -> str:
    """Return ` through the site's proxy …` for errors of a call of this URL; "" if the call is direct."""
    proxy = find_proxy(url)
    return "" if proxy is None else f" through {proxy.title}"


def _goes_past(host: str, port: int | None, proxies: dict[str, str]) -> bool:
    """Return whether calls to a host are direct."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        if address.is_loopback:
            return True
        for network in proxies.get("no", "").split(","):
            try:
                if address in ipaddress.ip_network(network.strip(), strict=False):
                    return True
            except ValueError:
                pass
    bracketed = f"[{host}]" if ":" in host else host
    names = (host, bracketed if port is None else f"{bracketed}:{port}")
    return any(bool(proxy_bypass_environment(name, proxies)) for name in names)
