"""The first request with a key: commands to copy, and whether it has arrived. Also the reference of the owner's API."""

from collections.abc import Mapping

import orjson
from aiohttp import web

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.api_docs import ApiOperation, ApiReference, build_commands
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.problems import page_codes

ROOT, DOCS = "/account/get-started", "/account/docs"
PLACEHOLDER = "YOUR_API_KEY"
NOTHING = "there is no such page"


def list_pages() -> list[Page]:
    """Return the pages with first steps and the reference."""
    return [
        Page("GET", ROOT, "customer", show_first_steps),
        Page("GET", DOCS, "customer", show_reference),
        Page("GET", f"{DOCS}/{{operation}}", "customer", show_operation),
    ]


def build_values(visit: Visit, key: JsonDocument | None) -> dict[str, object]:
    """Return the values of a page with commands. A new key's secret is included if `key` has it.

    Operators get no commands. Without settings for the API there are none either.
    """
    api = visit.site.settings.api
    if api is None or visit.signed_in.who.customer is None:
        return {"commands": {}, "base_url": "", "tried": key}
    secret = PLACEHOLDER if key is None else str(key.get("secret") or PLACEHOLDER)
    commands = build_commands(api.url, "GET", api.example, api.field, secret)
    return {"commands": commands, "base_url": api.url, "tried": key}


async def show_first_steps(visit: Visit) -> web.Response:
    """Show commands without a secret, and whether the key in the query was used. Without a key, any key counts."""
    if visit.site.settings.api is None:
        raise PageError(page_codes.PAGE_NOT_FOUND, NOTHING)
    query = {"limit": "1", "sort": "-last_used_on"}
    if key_id := visit.request.query.get("key"):
        key = await visit.fetch("GET", "/v1/keys/{key}", names={"key": key_id})
    else:
        keys = (await visit.fetch("GET", "/v1/customers/{customer}/keys", query=query))["keys"]
        key = keys[0] if keys else None
    return visit.render("get_started.html", has_reference=visit.site.reference is not None, **build_values(visit, key))


async def show_reference(visit: Visit) -> web.Response:
    """Show the operations of the owner's API."""
    return visit.render("api_docs.html", reference=_get_reference(visit), base_url=_get_url(visit))


async def show_operation(visit: Visit) -> web.Response:
    """Show an operation: parameters, answers and a command."""
    reference = _get_reference(visit)
    operation = reference.find(visit.path_parameter("operation"))
    if operation is None:
        raise PageError(page_codes.PAGE_NOT_FOUND, NOTHING)
    return visit.render(
        "api_operation.html", operation=operation, base_url=_get_url(visit), commands=_build_commands(visit, operation)
    )


def _get_reference(visit: Visit) -> ApiReference:
    if visit.site.reference is None:
        raise PageError(page_codes.PAGE_NOT_FOUND, NOTHING)
    return visit.site.reference


def _get_url(visit: Visit) -> str:
    api = visit.site.settings.api
    return "" if api is None else api.url


def _build_commands(visit: Visit, operation: ApiOperation) -> Mapping[str, str]:
    """Return an operation as commands. The path is untrusted: characters that could end shell quotes are removed."""
    api = visit.site.settings.api
    assert api is not None
    path = "".join(char for char in operation.path if char.isprintable() and char not in "'\"\\`$ ")
    examples = (body.example for body in operation.bodies if body.media == "application/json" and body.example)
    body = orjson.loads(next(examples, "null"))
    return build_commands(api.url, operation.method, path, api.field, PLACEHOLDER, body)
