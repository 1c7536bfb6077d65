"""A route's changes of paths and fields: pure functions of requests and configuration."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgeproxy.config.edge.path_patterns import compile_pattern
from edgeproxy.config.edge.rewrites import PART
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.field_values import find_value, find_values
from edgeproxy.edge.http1.fields import FOLD_TABLE
from edgeproxy.edge.http1.grammar import parse_field_name, parse_host
from edgeproxy.edge.http1.path import normalize_target

if TYPE_CHECKING:
    from edgeproxy.config.edge.rewrites import Redirect, RequestFields, ResponseFields, Rewrite

DESTINATION: Final = re.compile(
    rb"^(destination:[ \t]*)(?:(https?://[^/?#\s\\]*)?(/[^#\s]*)[ \t]*(?=\r)|.*)", re.IGNORECASE | re.MULTILINE
)
"""The line with the target of WebDAV's COPY and MOVE: its name, scheme and host, and the target in origin-form.

The last two groups take no part if the value has neither form of RFC 4918 section 8.3, or no path.
"""
DESTINATION_METHODS: Final = frozenset((b"COPY", b"MOVE"))
DESTINATION_MALFORMED: Final = "The Destination is neither a URL with http or https and a path, nor such a path alone"
DESTINATION_OUTSIDE: Final = "The Destination is not on this route, whose paths are rewritten"

FORWARDED_PREFIX: Final = "X-Forwarded-Prefix"
VALUE_BYTES_MAX: Final = 8 << 10
"""Bytes of a value with variables at most. Repeated headers could make it many times longer."""
REWRITTEN_BYTES_MAX: Final = 8 << 10
"""Bytes of a path before and after a regular expression at most."""


class FieldEdit:
    """Fields that are set and removed, in every spelling that some server may take for their name."""

    def __init__(self, settings: "RequestFields | ResponseFields") -> None:
        self._gone = frozenset(fold_name(name.encode()) for name in (*settings.set, *settings.remove))
        self.added = b"".join([f"{name}: {content}\r\n".encode() for name, content in settings.set.items()])

    def __bool__(self) -> bool:
        """Return whether it changes anything."""
        return bool(self._gone)

    def __call__(self, lines: bytes) -> bytes:
        """Return the changed lines."""
        return self.remove(lines) + self.added

    def remove(self, lines: bytes) -> bytes:
        """Return the lines without the fields that are set or removed."""
        remaining = [line for line in lines.split(b"\r\n")[:-1] if fold_name(parse_field_name(line)) not in self._gone]
        return b"".join([line + b"\r\n" for line in remaining])


class RequestFieldEdit(FieldEdit):
    """Changes of a request's fields, whose values may have variables."""

    def __init__(self, settings: "RequestFields", strip: str) -> None:
        """`strip`: the removed path, which the upstream learns in X-Forwarded-Prefix; empty if there is none."""
        added = dict(settings.set)
        if strip and FORWARDED_PREFIX.lower() not in map(str.lower, added):
            # Named as in Traefik: FastAPI, Flask and others build their links with it.
            added[FORWARDED_PREFIX] = strip.replace("{", "{{").replace("}", "}}")
        super().__init__(settings.model_copy(update={"set": added}))
        self.added = b""
        self._templates: list[tuple[bytes, tuple[bytes | str, ...]]] = []
        """The names and values of the fields that have variables."""
        for name, value in added.items():
            template = parse_template(value)
            literals = [part for part in template if isinstance(part, bytes)]
            if len(literals) == len(template):
                self.added += b"%b: %b\r\n" % (name.encode(), b"".join(literals))
            else:
                self._templates.append((name.encode(), template))

    def edit(self, lines: bytes, find_variable: Callable[[str], bytes]) -> bytes:
        """Return the changed lines. A field whose value is empty, or too long, is left out."""
        changed = [self(lines)]
        for name, template in self._templates:
            value = b"".join([part if isinstance(part, bytes) else find_variable(part) for part in template]).strip()
            if 0 < len(value) <= VALUE_BYTES_MAX:
                changed.append(b"%b: %b\r\n" % (name, value))
        return b"".join(changed)


def parse_template(value: str) -> tuple[bytes | str, ...]:
    """Return the parts of a value: literal bytes, and the names of variables."""
    parts: list[bytes | str] = []
    position = 0
    for match in PART.finditer(value):
        parts.append(value[position : match.start()].encode())
        parts.append(match[0][:1].encode() if match[1] is None else match[1])
        position = match.end()
    return *parts, value[position:].encode()


def fold_name(name: bytes) -> bytes:
    """Return the name of a field as servers see it that turn fields into variables."""
    return name.lower().translate(FOLD_TABLE)


class PathRewrite:
    """The replacement of paths that match a regular expression."""

    def __init__(self, regex: str, replacement: str) -> None:
        self._pattern = compile_pattern(regex)
        self._parts: list[bytes | int | str] = [
            int(part) if isinstance(part, str) and part.isdecimal() else part for part in parse_template(replacement)
        ]
        """Literal bytes, and the numbers and names of captures."""

    def apply(self, path: bytes) -> bytes | None:
        """Return the rewritten path, or None if the expression does not match it.

        The result begins with one slash, as with `strip`. Raises RejectedError: 414 for a path or a result that is too
        long, 400 for a result that is not in the form of normalized paths.
        """
        if len(path) > REWRITTEN_BYTES_MAX:
            raise RejectedError(414, "The path is longer than this route rewrites", close=False)
        match = self._pattern.fullmatch(path)
        if match is None:
            return None
        parts = [part if isinstance(part, bytes) else match[part] or b"" for part in self._parts]
        rewritten = b"/" + b"".join(parts).lstrip(b"/")
        if len(rewritten) > REWRITTEN_BYTES_MAX:
            raise RejectedError(414, "The rewritten path is too long", close=False)
        if not _is_normal(rewritten):
            raise RejectedError(400, "The rewritten path has a dot segment or a broken escape", close=False)
        return rewritten


def _is_normal(path: bytes) -> bool:
    """Return whether a path is in its normal form."""
    try:
        return normalize_target(path) == path
    except RejectedError:
        return False


class Rewriter:
    """The rewriting of a route's requests. `base` is the path of its upstream's endpoints."""

    def __init__(self, settings: "Rewrite | None", base: str) -> None:
        self._prefix = base.encode()
        self._public = b""
        """The beginning of a path that is removed."""
        self._edit: RequestFieldEdit | None = None
        self._path_rewrite: PathRewrite | None = None
        if settings is not None:
            self._prefix += (settings.prefix or "").encode()
            strip = settings.strip or ""
            self._public = strip.encode()
            self._edit = RequestFieldEdit(settings.request, strip) or None
            if settings.regex is not None and settings.replacement is not None:
                self._path_rewrite = PathRewrite(settings.regex, settings.replacement)

    def __bool__(self) -> bool:
        """Return whether it changes anything."""
        return bool(self._public or self._prefix or self._edit or self._path_rewrite)

    def rewrite_line(self, first: bytes) -> bytes:
        """Rewrite the request line. Its path is exactly the one that matched the route."""
        method, target, version = first.split(b" ", 2)
        return b"%b %b %b" % (method, self.rewrite_target(target), version)

    def rewrite_target(self, target: bytes) -> bytes:
        """Rewrite a target in origin-form.

        The rest of a path begins with one slash. With two, a server that reads it as a reference would see a host (RFC
        3986 section 4.2). Raises RejectedError as `PathRewrite.apply`, always for the same paths.
        """
        path, question, query = target.partition(b"?")
        rest = path if self._path_rewrite is None else self._path_rewrite.apply(path) or path
        if self._public:
            rest = path[len(self._public) :].lstrip(b"/")
            rest = b"/" + rest if rest or path.endswith(b"/") or not self._prefix else b""
        return self._prefix + rest + question + query

    def rewrite_fields(self, lines: bytes, find_variable: Callable[[str], bytes]) -> bytes:
        """Rewrite the kept fields of a request. `find_variable` returns the value of a variable."""
        return lines if self._edit is None else self._edit.edit(lines, find_variable)

    def rewrite_destination(self, lines: bytes) -> bytes:
        """Rewrite the path in the Destination of COPY and MOVE (RFC 4918 section 10.3) like that of a request.

        Raises RejectedError: 400 for a value that the route's rule does not rewrite, because it may name another file
        at the upstream; and as `rewrite_target`.
        """
        if not (self._public or self._prefix or self._path_rewrite):
            return lines
        return DESTINATION.sub(self._rewrite_match, lines)

    def _rewrite_match(self, match: re.Match[bytes]) -> bytes:
        name, host, received = match.groups(b"")
        if not received:
            raise RejectedError(400, DESTINATION_MALFORMED, close=False)
        target = normalize_target(received)
        path = target.partition(b"?")[0]
        is_on_route = path == self._public or path.startswith(self._public.rstrip(b"/") + b"/")
        if not is_on_route or (self._path_rewrite is not None and self._path_rewrite.apply(path) is None):
            raise RejectedError(400, DESTINATION_OUTSIDE, close=False)
        return b"%b%b%b" % (name, host, self.rewrite_target(target))


def compute_location(settings: "Redirect", prefix: str | None, first: bytes, lines: bytes) -> bytes:
    """Return the target of a redirect. `prefix` is the route's, or None if its path is exact.

    Nothing from the client can end the line: the path has no such byte. The part that replaces `*` cannot lead to
    another host, because the configuration has a `/` before it and no second one follows. Raises RejectedError(400) if
    the redirect needs the requested host and there is none.
    """
    target = first.split(b" ", 2)[1]
    path, question, query = target.partition(b"?")
    if settings.to == "https":
        # Without X-Forwarded-Host the request names no host: the Host there was made up for the upstream.
        host = parse_host(find_value(lines, b"host") or b"") if find_values(lines, b"x-forwarded-host") else None
        if host is None:
            raise RejectedError(400, "The request names no host, and cannot be sent to https", close=False)
        return b"https://%b%b" % (host, target)
    to = settings.to.encode()
    if to.endswith(b"*"):
        # A wildcard segment of the prefix has any length, so slashes are counted.
        slashes = (prefix or "/").count("/")
        to = to[:-1] + b"".join(path.split(b"/", slashes)[slashes:]).lstrip(b"/")
    return to if b"?" in to else to + question + query
