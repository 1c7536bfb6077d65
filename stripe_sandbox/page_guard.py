"""Which requests of web pages are served: a page of another site must not act here for the developer who opens it."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from stripe_sandbox.refusal import ApiError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
READS = ("GET", "HEAD")


@web.middleware
async def refuse_foreign_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another site sends; requests without a browser's fields come from tools."""
    try:
        _require_own_host(request)
        if request.method not in READS and request.path.startswith("/_sandbox"):
            _require_own_page(request)
    except ApiError as error:
        return web.Response(status=error.status, body=orjson.dumps(error.body), content_type="application/json")
    return await handler(request)


def _require_own_host(request: web.Request) -> None:
    """Raise ApiError for a name that is not of this machine: by such a name a page of its site reads every answer
    (DNS rebinding)."""
    for host in request.headers.getall("Host", ()):
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if not is_loopback(name.removesuffix(".")):
            raise ApiError(421, "The Host of a request to the sandbox is a loopback address or `localhost`.")


def _require_own_page(request: web.Request) -> None:
    """Raise ApiError for a request that another page sent, such as one of another port of this host."""
    site, origin = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Origin")
    if site not in ("same-origin", "none") or (origin is not None and urlsplit(origin).netloc != request.host):
        raise ApiError(403, "Pages of other sites cannot act on the sandbox.")


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or a name of one (RFC 6761 section 6.3)."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
