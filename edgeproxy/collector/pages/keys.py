"""Forms that make, rotate and revoke keys: the same for operators and for customers, whose API tells them apart.
Operators may take a revocation back.
"""

from typing import Any

from aiohttp import web

from edgeproxy.collector.pages.site import Audience, Page, PageError, Visit, format_path

OVERLAPS = ("0s", "1h", "1d", "7d", "30d")
"""After what time a key ends that is rotated."""
LISTED_MAX = 50
"""Keys of a page."""


def list_forms(root: str, who: Audience) -> list[Page]:
    """List the forms of keys whose paths begin with `root`."""
    return [
        Page("POST", f"{root}/keys/{{key}}/rotate", who, rotate_key),
        Page("POST", f"{root}/keys/{{key}}/revoke", who, revoke_key),
        *([Page("POST", f"{root}/keys/{{key}}/restore", who, restore_key)] if who == "operator" else []),
    ]


async def list_keys(visit: Visit, customer: str) -> dict[str, Any]:
    """Return what a page needs to show the keys of a customer."""
    query = {"limit": str(LISTED_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    body = await visit.fetch("GET", "/v1/customers/{customer}/keys", names={"customer": customer}, query=query)
    return {"keys": body["keys"], "more": body.get("next"), "overlaps": OVERLAPS, "customer": customer}


async def create_key(visit: Visit, customer: str, back: str) -> web.Response:
    """Make a key, and show its secret this once."""
    body: dict[str, Any] = {}
    if name := visit.form.get("name", "").strip():
        body["name"] = name
    if expires := visit.form.get("expires", "").strip():
        body["expires_at"] = expires
    names = {"customer": customer}
    key = await visit.fetch(
        "POST", "/v1/customers/{customer}/keys", names=names, body=body, once=read_idempotency_key(visit)
    )
    return visit.render("key_secret.html", key=key, back=back)


async def rotate_key(visit: Visit) -> web.Response:
    """Make a key in the place of another one, and show its secret this once."""
    body = {"overlap": visit.form.get("overlap", "7d")}
    names = {"key": visit.path_parameter("key")}
    key = await visit.fetch("POST", "/v1/keys/{key}/rotate", names=names, body=body, once=read_idempotency_key(visit))
    return visit.render("key_secret.html", key=key, back=find_keys_page(visit, key["customer"]))


async def revoke_key(visit: Visit) -> web.Response:
    """End a key at once."""
    key = await visit.fetch("DELETE", "/v1/keys/{key}", names={"key": visit.path_parameter("key")})
    return visit.redirect(find_keys_page(visit, key["customer"]), done="revoked")


async def restore_key(visit: Visit) -> web.Response:
    """Take the revocation of a key back."""
    key = await visit.fetch("POST", "/v1/keys/{key}/restore", names={"key": visit.path_parameter("key")})
    return visit.redirect(find_keys_page(visit, key["customer"]), done="key-restored")


def find_keys_page(visit: Visit, customer: str) -> str:
    """Return the page with the keys of a customer."""
    return (
        "/account/keys"
        if visit.signed_in.who.customer
        else format_path("/console/customers/{customer}", customer=customer)
    )


def read_idempotency_key(visit: Visit) -> str:
    """Return what makes a form one that may be sent again and is done once; raises Fault."""
    once = visit.form.get("once", "")
    if not (16 <= len(once) <= 64 and once.isalnum() and once.isascii()):
        raise PageError(400, "the form is not whole: open the page again")
    return once
