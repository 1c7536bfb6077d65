"""Forms that make, rotate and revoke keys: the same for operators and for customers, whose API tells them apart.
Operators may take a revocation back.
"""

from typing import Any

from aiohttp import web

from edgeproxy.collector.pages.site import Fault, Page, Visit, Who, to

OVERLAPS = ("0s", "1h", "1d", "7d", "30d")
"""After what time a key ends that is rotated."""
LISTED_MAX = 50
"""Keys of a page."""


def forms_of(root: str, who: Who) -> list[Page]:
    """List the forms of keys whose paths begin with `root`."""
    return [
        Page("POST", f"{root}/keys/{{key}}/rotate", who, rotate),
        Page("POST", f"{root}/keys/{{key}}/revoke", who, revoke),
        *([Page("POST", f"{root}/keys/{{key}}/restore", who, restore)] if who == "operator" else []),
    ]


async def listed(visit: Visit, customer: str) -> dict[str, Any]:
    """Return what a page needs to show the keys of a customer."""
    query = {"limit": str(LISTED_MAX)}
    if cursor := visit.request.query.get("cursor"):
        query["cursor"] = cursor
    found = await visit.ask("GET", "/v1/customers/{customer}/keys", names={"customer": customer}, query=query)
    return {"keys": found["keys"], "more": found.get("next"), "overlaps": OVERLAPS, "customer": customer}


async def create(visit: Visit, customer: str, back: str) -> web.Response:
    """Make a key, and show its secret this once."""
    body: dict[str, Any] = {}
    if name := visit.form.get("name", "").strip():
        body["name"] = name
    if expires := visit.form.get("expires", "").strip():
        body["expires_at"] = expires
    names = {"customer": customer}
    made = await visit.ask("POST", "/v1/customers/{customer}/keys", names=names, body=body, once=once_of(visit))
    return visit.page("key_made.html", key=made, back=back)


async def rotate(visit: Visit) -> web.Response:
    """Make a key in the place of another one, and show its secret this once."""
    body = {"overlap": visit.form.get("overlap", "7d")}
    names = {"key": visit.name("key")}
    made = await visit.ask("POST", "/v1/keys/{key}/rotate", names=names, body=body, once=once_of(visit))
    return visit.page("key_made.html", key=made, back=back_of(visit, made["customer"]))


async def revoke(visit: Visit) -> web.Response:
    """End a key at once."""
    told = await visit.ask("DELETE", "/v1/keys/{key}", names={"key": visit.name("key")})
    return visit.go(back_of(visit, told["customer"]), done="revoked")


async def restore(visit: Visit) -> web.Response:
    """Take the revocation of a key back."""
    key = await visit.ask("POST", "/v1/keys/{key}/restore", names={"key": visit.name("key")})
    return visit.go(back_of(visit, key["customer"]), done="key-restored")


def back_of(visit: Visit, customer: str) -> str:
    """Return the page with the keys of a customer."""
    return "/account/keys" if visit.known.who.customer else to("/console/customers/{customer}", customer=customer)


def once_of(visit: Visit) -> str:
    """Return what makes a form one that may be sent again and is done once; raises Fault."""
    once = visit.form.get("once", "")
    if not (16 <= len(once) <= 64 and once.isalnum() and once.isascii()):
        raise Fault(400, "the form is not whole: open the page again")
    return once
