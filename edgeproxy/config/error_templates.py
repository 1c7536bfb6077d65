"""Templates of error bodies: their files and their faults."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from edgeproxy.config.media_types import find_media_type
from edgeproxy.config.references import Fault
from edgeproxy.config.tree import Items, Table, Value

TEMPLATE_BYTES_MAX: Final = 64 << 10
"""Maximum bytes of a template. A longer text is not readable for people."""
VARIABLE: Final = re.compile(r"\{\{([^{}]*)\}\}")
VARIABLES: Final = {
    "status": "the status, such as `429`",
    "title": "its phrase, such as `Too Many Requests`",
    "code": "a word for programs, such as `rate_limit_exceeded`",
    "detail": "a sentence on what happened and what to do",
    "request_id": "the id of the request, as in `X-Request-Id`",
}
"""The variables of templates, with their meanings."""
A_VARIABLE: Final = f"there are {', '.join(f'{{{{{name}}}}}' for name in VARIABLES)}"
MARKUP: Final = ("text/html", "application/xml", "text/xml", "application/xhtml+xml")
ACTIVE_ATTRIBUTES: Final = ("style", "href", "src", "srcdoc", "action", "formaction")
"""Attributes whose values are more than text, in addition to event handlers."""


class InvalidTemplateError(Exception):
    """A file that cannot be a template: the problem and a hint."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what, self.hint = what, hint


def read_template(file: str) -> tuple[bytes, str]:
    """Return the content of a template as bytes and text; raises InvalidTemplateError."""
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(TEMPLATE_BYTES_MAX + 1)
        return content, content.decode()
    except OSError as error:
        raise InvalidTemplateError(f"{file} cannot be read: {error.strerror}", "name a file that can be read") from None
    except UnicodeDecodeError:
        raise InvalidTemplateError(f"{file} is no UTF-8", "save it as UTF-8") from None


def list_error_sections(tree: Table) -> Iterator[tuple[tuple[str | int, ...], Table]]:
    """Yield each `errors` mapping of a tree: first the general one, then the ones of single routes."""
    routes = tree.get("routes")
    owners: list[tuple[tuple[str | int, ...], Value]] = [((), tree)]
    owners += [(("routes", n), route) for n, route in enumerate(routes if isinstance(routes, Items) else ())]
    for path, owner in owners:
        errors = owner.get("errors") if isinstance(owner, Table) else None
        if isinstance(errors, Table):
            yield (*path, "errors"), errors


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find unusable templates in a tree that has the text of each file."""
    for path, section in list_error_sections(tree):
        text, file = section.get("text"), section.get("template")
        if file is None and text is None and "type" in section:
            yield Fault((*path, "type"), "is for a template", "write template: FILE, or leave type out")
        if (file is not None or text is not None) and section.get("format", "problem") != "problem":
            yield Fault((*path, "format"), "is nothing for a template", "leave one of them out")
        if isinstance(text, str):
            written = section.get("type")
            media_type = (
                written.lower()
                if isinstance(written, str)
                else find_media_type(file if isinstance(file, str) else None)
            )
            fault = find_template_fault(text, media_type)
            if fault is not None:
                yield Fault((*path, "template" if file is not None else "text"), *fault)


def find_template_fault(text: str, media_type: str) -> tuple[str, str] | None:
    """Return the problem of a template and a hint, or None."""
    if len(text.encode(errors="surrogatepass")) > TEMPLATE_BYTES_MAX:
        return f"is a template of more than {TEMPLATE_BYTES_MAX >> 10} KiB", "shorten it"
    unknown = next((name.strip() for name in VARIABLE.findall(text) if name.strip() not in VARIABLES), None)
    if unknown is not None:
        return f"has the unknown variable {{{{{unknown[:40]}}}}}", A_VARIABLE
    if media_type.endswith("json"):
        return _find_json_fault(text)
    if media_type in MARKUP:
        places = _Places()
        places.feed(text)
        places.close()
        if places.unescaped:
            return f"has a variable in {places.unescaped[0]}", "move it into the text, where it is escaped"
    return None


def _find_json_fault(text: str) -> tuple[str, str] | None:
    """Return the problem of a JSON template and a hint. Every variable except the status must be within quotes."""
    try:
        json.loads(VARIABLE.sub("1", text))
    except ValueError as error:
        return f"is a template that is no JSON: {error}", 'write texts in quotes: {"error": "{{detail}}"}'
    plain = text.replace("\\\\", "  ").replace('\\"', "  ")
    for match in VARIABLE.finditer(plain):
        if match[1].strip() != "status" and plain.count('"', 0, match.start()) % 2 == 0:
            return f"has {match[0]} outside of quotes", 'write "{{detail}}"; {{status}} alone may stand without'
    return None


class _Places(HTMLParser):
    """Finds variables in places where escaping does not make them text: scripts, styles, tags and URLs."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.unescaped: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        outside = re.sub(r"\"[^\"]*\"|'[^']*'", "", self.get_starttag_text() or "")
        if VARIABLE.search(outside):
            self.unescaped.append(f"<{tag}>, outside of quotes")
        for name, value in attrs:
            if (name.startswith("on") or name in ACTIVE_ATTRIBUTES) and VARIABLE.search(value or ""):
                self.unescaped.append(f"the attribute {name}")

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self.cdata_elem and VARIABLE.search(data):
            self.unescaped.append(f"<{self.cdata_elem}>")
