"""The rendering of templates into HTML, and the header fields of pages."""

import gzip
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache, partial
from importlib.resources import files
from math import ceil
from types import CodeType

from aiohttp import web
from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket

from edgeproxy.collector.accounts.ids import is_pseudonym
from edgeproxy.collector.alerts.words import describe, describe_own, find_button
from edgeproxy.collector.languages.catalogs import LANGUAGES, load_catalog
from edgeproxy.collector.languages.invisible import TEXT_CHARACTERS_MAX, escape_invisible
from edgeproxy.collector.languages.meter_display import format_label
from edgeproxy.collector.languages.reader import Reader, parse_time
from edgeproxy.collector.pages import charts
from edgeproxy.collector.pages.words import WORDS
from edgeproxy.config.units import DAY_SECONDS

STATIC = {"style.css": "text/css", "pages.js": "text/javascript", "icon.svg": "image/svg+xml"}
CHARTS = ("draw_bars", "draw_lines", "draw_sparkline", "draw_days")
"""The chart functions that templates call."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it browsers send `Origin: null` with forms, but forms are checked by their origin.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
PRIVATE = {"Cache-Control": "no-store"}
LASTING = {"Cache-Control": "public, max-age=31536000, immutable"}


def count_days(start: str, end: str) -> int:
    """Return the days of a time, where the last one may be partial."""
    return ceil((parse_time(end) - parse_time(start)).total_seconds() / DAY_SECONDS)


@cache
def read_static(name: str) -> bytes:
    """Return the content of a static file."""
    return (files("edgeproxy.collector.pages") / "static" / name).read_bytes()


@cache
def find_static_path(name: str) -> str:
    """Return the path of a static file with a hash of its content, so that caches may store it for ever."""
    return f"/pages/{hashlib.sha256(read_static(name)).hexdigest()[:12]}/{name}"


def list_static_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield the path, the content and the media type of each static file."""
    for name, media in STATIC.items():
        yield find_static_path(name), read_static(name), media


class CompiledTemplates(BytecodeCache):
    """The compiled templates. All languages share them."""

    def __init__(self) -> None:
        self._codes: dict[str, CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Set a template's code if it was compiled before."""
        bucket.code = self._codes.get(bucket.key)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Store the code of a newly compiled template."""
        assert bucket.code is not None
        self._codes[bucket.key] = bucket.code


COMPILED = CompiledTemplates()


@cache
def create_environment(language: str) -> Environment:
    """Return the environment of templates, with the texts of a language."""
    templates = Environment(
        loader=PackageLoader("edgeproxy.collector.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=COMPILED,
    )
    templates.install_gettext_translations(load_catalog(language), newstyle=True)  # type: ignore[attr-defined]
    say = load_catalog(language).gettext
    templates.filters |= {"shown": show_text, "label": partial(show_label, say=say), "worded": say}
    templates.globals |= {"describe_alert": describe, "describe_own_alert": describe_own, "find_button": find_button}
    templates.globals |= {
        "place_of": find_static_path,
        "languages": LANGUAGES,
        "count_days": count_days,
        "parse_time": parse_time,
    }
    templates.globals |= {name: getattr(charts, name) for name in CHARTS} | {"now": time.time}
    templates.globals |= {name: {key: say(text) for key, text in words.items()} for name, words in WORDS.items()}
    return templates


def show_label(name: str, say: Callable[[str], str]) -> str:
    """Return the label of a meter, a limit or a feature, translated if the reader's language has it."""
    label = format_label(name)
    return say(label) if label else label


def show_text(value: object, most: int = TEXT_CHARACTERS_MAX) -> str:
    """Return an untrusted text for display. A pseudonym stays whole, because its name will replace it."""
    text = str(value)
    return text if is_pseudonym(text) else escape_invisible(text, most)


def render_template(template: str, reader: Reader, **values: object) -> str:
    """Return a template rendered for a reader."""
    return create_environment(reader.language).get_template(template).render(reader=reader, **values)


def create_file_handler(content: bytes, media: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that serves a static file, with gzip if accepted. Pages have secrets and are not compressed."""

    compressed = gzip.compress(content, mtime=0)

    async def answer(request: web.Request) -> web.Response:
        fields = {**SECURITY, **LASTING, "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=content, content_type=media, charset="utf-8", headers=fields)
        fields["Content-Encoding"] = "gzip"
        return web.Response(body=compressed, content_type=media, charset="utf-8", headers=fields)

    return answer


def respond_html(text: str, status: int = 200) -> web.Response:
    """Return a response with a page. Caches do not store it."""
    return web.Response(status=status, text=text, content_type="text/html", headers={**SECURITY, **PRIVATE})


def respond_csv(text: str, name: str) -> web.Response:
    """Return a response with a CSV file for download. Caches do not store it."""
    fields = {"Content-Disposition": f'attachment; filename="{name}"', **SECURITY, **PRIVATE}
    return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=fields)
