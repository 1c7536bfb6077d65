"""The rendering of pages: templates, and the header fields of HTML."""

import re
from functools import cache
from importlib.resources import files

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from stripe_sandbox.documents import format_date
from stripe_sandbox.objects.currencies import format_amount

STYLE = "/_sandbox/style.css"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "form-action 'self'",  # Browsers apply it to redirects of forms too: pages lead to other sites by a refresh.
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    # Not `no-referrer`: with it browsers send `Origin: null` with forms, and forms are known by their origin.
    "Referrer-Policy": "same-origin",
}
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
RUNNABLE = ("data", "javascript", "vbscript")
"""Schemes of addresses that a browser runs instead of going there."""


def render_page(template: str, code: int = 200, **values: object) -> web.Response:
    """Return the response with a page and this status code."""
    text = _create_environment().get_template(template).render(style=STYLE, **values)
    return web.Response(status=code, text=text, content_type="text/html", headers=HEADERS)


async def get_style(_: web.Request) -> web.Response:
    """Return the style sheet of all pages."""
    return web.Response(body=_read_style(), content_type="text/css")


def find_link(url: str | None) -> str | None:
    """Return an address that a page may lead to, of any scheme that runs nothing; None for others."""
    match = SCHEME.match(url or "")
    return None if match is None or match[1].lower() in RUNNABLE else url


@cache
def _create_environment() -> Environment:
    templates = Environment(
        loader=PackageLoader("stripe_sandbox"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {"amount": format_amount, "date": format_date, "link": find_link}
    return templates


@cache
def _read_style() -> bytes:
    return (files("stripe_sandbox") / "templates" / "style.css").read_bytes()
