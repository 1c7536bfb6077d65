"""The console's page of machine tokens."""

from aiohttp import web

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts.tokens import TokenResponse
from edgeproxy.collector.pages import keys, lists
from edgeproxy.collector.pages.site import Page, Visit

TOKENS = "/console/tokens"
ROLES = ("edge", "beacon", "service", "aggregates", "read", "support", "billing", "admin")
LISTED_MAX = 50
"""Tokens per page."""
FIELDS = ("name", "role", "customer", "edge", "region")


def list_pages() -> list[Page]:
    """Return the page and its forms."""
    own = (
        ("GET", TOKENS, show_tokens),
        ("POST", TOKENS, create_token),
        ("POST", f"{TOKENS}/{{token}}/secret", add_secret),
        ("POST", f"{TOKENS}/{{token}}/revoke", revoke_token),
    )
    return [Page(method, path, "operator", handler) for method, path, handler in own]


async def show_tokens(visit: Visit) -> web.Response:
    """Show a page of tokens, beginning after the name `cursor`."""
    tokens: list[TokenResponse] = (await visit.fetch("GET", "/v1/tokens"))["tokens"]
    some, more = lists.paginate(tokens, "name", LISTED_MAX, visit.request.query.get("cursor"))
    return visit.render("tokens.html", tokens=some, more=more, roles=ROLES)


async def create_token(visit: Visit) -> web.Response:
    """Create a token and show its secret. No later page shows it."""
    body: JsonObject = {name: value for name in FIELDS if (value := visit.form.get(name, "").strip())}
    if expires := visit.read_field("expires").strip():
        body["expires_at"] = expires
    token = await visit.fetch("POST", "/v1/tokens", body=body, once=keys.read_idempotency_key(visit))
    return visit.render("token_secret.html", token=token)


async def add_secret(visit: Visit) -> web.Response:
    """Add a secret to a token and show it. No later page shows it."""
    body = {"overlap": visit.form.get("overlap", "7d")}
    token = await visit.fetch("POST", "/v1/tokens/{token}", body=body, once=keys.read_idempotency_key(visit))
    return visit.render("token_secret.html", token=token)


async def revoke_token(visit: Visit) -> web.Response:
    """Revoke a token."""
    await visit.fetch("DELETE", "/v1/tokens/{token}")
    return visit.redirect(TOKENS, done="token")
