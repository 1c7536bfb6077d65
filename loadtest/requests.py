"""Requests that replace the usual one: an API's own methods, paths, headers and bodies. Pure except for file reads.

They come from a workload file, or from an access log in its proportions.
"""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from edgeproxy.config.field_types import File, Share
from edgeproxy.config.part import Part
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import Fault, list_members
from edgeproxy.config.tree import Items, Table
from edgeproxy.config.units import Whole, format_value, read_text, value_error
from loadtest import replay

KEY_FIELD = "X-API-Key"
NAMES_MAX = 200
"""The most names that reports distinguish. Rarer requests of a log share one name."""
OTHER = "others"
PLACEHOLDER = re.compile(r"\{(?:(key|customer|uuid)|(\d{1,9})\.\.(\d{1,9}))\}")

A_METHOD = "a method such as GET or POST"
A_PATH = "a path such as /v1/orders/{1..500}?expand=items"
A_HEADER = "a line of text"


def read_method(value: object) -> str:
    """Parse a method."""
    written = read_text(value, A_METHOD).upper()
    if written not in replay.METHODS:
        raise value_error(f"{format_value(written)} is not a method", A_METHOD)
    return written


def read_path(value: object) -> str:
    """Parse a path with its query, in visible ASCII."""
    written = read_text(value, A_PATH)
    if not re.fullmatch(r"/[!-~]*", written) or "#" in written:
        raise value_error(f"{format_value(written)} is not a path", A_PATH)
    return written


def read_header(value: object) -> str:
    """Parse the value of a header."""
    written = read_text(value, A_HEADER)
    if not re.fullmatch(r"[ -~]*", written):
        raise value_error(f"{format_value(written)} is not one line of visible ASCII", A_HEADER)
    return written


class RequestSpec(Part):
    """One kind of request, or with `log` the requests of an access log.

    In paths, headers and bodies, `{key}`, `{customer}`, `{uuid}` and `{1..500}` (a random number) are replaced for
    each request.
    """

    share: Share = 0.0
    method: Annotated[str, BeforeValidator(read_method)] = "GET"
    path: Annotated[str | None, BeforeValidator(read_path)] = None
    headers: dict[str, Annotated[str, BeforeValidator(read_header)]] = {}  # noqa: RUF012  # Frozen.
    body: Annotated[str | None, BeforeValidator(lambda value: read_text(value, "text"))] = None
    body_file: File | None = None
    expect: tuple[Annotated[int, BeforeValidator(Whole(100, 599))], ...] = ()
    """Expected statuses; by default 200 to 399."""
    name: Annotated[str | None, BeforeValidator(read_header)] = None
    """The name in reports; by default the method and the path without its query."""
    log: File | None = None


class Template(NamedTuple):
    """A request to be filled in. `weight` is its part of all requests, `name` its name in reports."""

    weight: float
    name: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    expected: tuple[int, ...] = ()

    @property
    def has_key(self) -> bool:
        """Return whether the template contains the place of the customer's key."""
        return any("{key}" in value for value in (self.path, *self.headers.values()))

    def is_expected(self, status: int) -> bool:
        """Return whether this status is expected."""
        return status in self.expected if self.expected else 200 <= status < 400


class Filled(NamedTuple):
    """A request that is ready to be sent."""

    path: str
    headers: dict[str, str]
    body: bytes


def fill(template: Template, customer: str, key: str | None, random: Random) -> Filled:
    """Fill in a template for a customer; without `key` the request has none."""

    def value(match: re.Match[str]) -> str:
        word, low, high = match.groups()
        if word is None:
            return str(random.randint(*sorted((int(low), int(high)))))
        if word == "uuid":
            return str(uuid.UUID(int=random.getrandbits(128), version=4))
        return customer if word == "customer" else key or ""

    headers = {
        name: PLACEHOLDER.sub(value, text) for name, text in template.headers.items() if key or "{key}" not in text
    }
    if key and not template.has_key:
        headers[KEY_FIELD] = key
    body = template.body
    if b"{" in body:
        body = PLACEHOLDER.sub(value, body.decode()).encode()
    return Filled(PLACEHOLDER.sub(value, template.path), headers, body)


def fetch_templates(specs: Sequence[RequestSpec]) -> list[Template]:
    """Return all requests of a workload with their weights. Requests of logs are weighted by frequency. Raises
    OSError.
    """
    made: list[Template] = []
    for spec in specs:
        if spec.log is not None:
            mix = read_mix(replay.read(spec.log))
            total = sum(mix.values())
            for (method, path), count in mix.items():
                name = name_of(method, path)
                made.append(Template(spec.share * count / total, name, method, path, spec.headers, b"", spec.expect))
            continue
        assert spec.path is not None
        body = spec.body_file.read_bytes() if spec.body_file else (spec.body or "").encode()
        headers = dict(spec.headers)
        if body[:1] in (b"{", b"[") and "content-type" not in map(str.lower, headers):
            headers["Content-Type"] = "application/json"
        name = spec.name or name_of(spec.method, spec.path)
        made.append(Template(spec.share, name, spec.method, spec.path, headers, body, spec.expect))
    return made


def name_of(method: str, path: str) -> str:
    """Return the report name of a request without a name."""
    return f"{method} {urlsplit(path).path}"


def list_names(made: Sequence[Template], recorded: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of all requests by weight; beyond NAMES_MAX they are OTHER."""
    weights = Counter[str]()
    for template in made:
        weights[template.name] += template.weight  # type: ignore[assignment]  # A counter of shares.
    weights.update(name_of(method, path) for method, path in recorded)
    names = [name for name, _ in weights.most_common()]
    return names if len(names) <= NAMES_MAX else [*names[: NAMES_MAX - 1], OTHER]


def read_mix(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    """Count each method and path among the repeatable requests of an access log."""
    return Counter((one.method, one.path) for one in replay.logged(lines, "") if replay.is_repeatable(one))


def find_request_faults(tree: Table, whole: Callable[..., Iterator[Fault]]) -> Iterator[Fault]:
    """Yield the missing and surplus fields of `requests`. `whole` checks that shares make a whole."""
    section = tree.get("requests")
    if section is None:
        return
    shares = []
    for path, request in list_members(tree, "requests"):
        shares.append(request.get("share"))
        yield from _faults_of(path, request)
    if isinstance(section, Items):
        yield from whole(("requests",), shares)


def _faults_of(path: Steps, request: Table) -> Iterator[Fault]:
    if "share" not in request:
        yield Fault(path, "share is missing", "write share: 30%")
    if ("path" in request) == ("log" in request):
        what = "has path and log" if "path" in request else "asks for nothing"
        yield Fault(path, what, "write path: /v1/orders, or log: access.log for those of an access log")
    for other in ("method", "body", "body_file", "name"):
        if "log" in request and other in request:
            yield Fault((*path, other), "is not for a log", "leave it out: a log has its own")
    if "body" in request and "body_file" in request:
        yield Fault((*path, "body_file"), "stands beside body", "leave one of them out")


def list_missing_files(specs: Sequence[RequestSpec]) -> Iterator[tuple[str, Path]]:
    """Yield missing files, each with its field."""
    for index, spec in enumerate(specs):
        for field in ("log", "body_file"):
            file = getattr(spec, field)
            if file is not None and not file.is_file():
                yield f"requests.{index}.{field}", file
