"""Tokens of machines for operators: listed, made, given another secret, revoked."""

from typing import Any

from aiohttp import web

from edgeproxy.collector.pages import keys
from edgeproxy.collector.pages.site import Page, Visit

TOKENS = "/console/tokens"
ROLES = ("edge", "beacon", "service", "read", "support", "billing", "admin")
LISTED_MAX = 50
"""Tokens of a page."""
FIELDS = ("name", "role", "customer", "edge", "region")


def pages() -> list[Page]:
    """List the page and its forms."""
    own = (
        ("GET", TOKENS, shown),
        ("POST", TOKENS, create),
        ("POST", f"{TOKENS}/{{token}}/secret", add_secret),
        ("POST", f"{TOKENS}/{{token}}/revoke", revoke),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


async def shown(visit: Visit) -> web.Response:
    """Show tokens, a page of them at a time: those behind the name `cursor`."""
    found = (await visit.ask("GET", "/v1/tokens"))["tokens"]
    some, more = visit.part(found, "name", LISTED_MAX)
    return visit.page("tokens.html", tokens=some, more=more, roles=ROLES, overlaps=keys.OVERLAPS)


async def create(visit: Visit) -> web.Response:
    """Make a token, and show its secret this once."""
    body: dict[str, Any] = {name: said for name in FIELDS if (said := visit.form.get(name, "").strip())}
    if expires := visit.form.get("expires", "").strip():
        body["expires_at"] = expires
    made = await visit.ask("POST", "/v1/tokens", body=body, once=keys.once_of(visit))
    return visit.page("token_made.html", token=made)


async def add_secret(visit: Visit) -> web.Response:
    """Give a token another secret, and show it this once."""
    names, body = {"token": visit.name("token")}, {"overlap": visit.form.get("overlap", "7d")}
    made = await visit.ask("POST", "/v1/tokens/{token}", names=names, body=body, once=keys.once_of(visit))
    return visit.page("token_made.html", token=made)


async def revoke(visit: Visit) -> web.Response:
    """End a token at once."""
    await visit.ask("DELETE", "/v1/tokens/{token}", names={"token": visit.name("token")})
    return visit.go(TOKENS, done="token")
