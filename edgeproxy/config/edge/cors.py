"""Cross-origin requests (the Fetch standard, section 3.3): pages that may call a route, and fields they may use."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers, units
from edgeproxy.config.edge import readers
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

ANY = "*"
ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\*\.)?((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE
)
WEB_ORIGIN = "[A-Za-z][A-Za-z0-9+.-]*://((\\*\\.)?([A-Za-z0-9_-]+\\.)+[A-Za-z0-9_-]+|[A-Za-z0-9_-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?"
PORTS = {"http": "80", "https": "443"}
"""Default ports, which browsers leave out of origins."""

AN_ORIGIN = "an origin such as https://app.example.com, https://*.example.com, or *"


@written(build_text("origin", rf"\*|(?!null$){WEB_ORIGIN}", "https://app.example.com", "https://*.example.com"))
def read_origin(value: object) -> str:
    """Read an origin as browsers send it: scheme, host, and a port if it is not the scheme's default."""
    written = read_text(value, AN_ORIGIN)
    if written == ANY:
        return written
    if written.lower() == "null":
        raise value_error(
            "null is the origin of every sandboxed page and every local file", "name the origins of your own"
        )
    match = ORIGIN.fullmatch(written)
    if match is None:
        hint = "without a path and a / at its end" if written.count("/") > 2 else AN_ORIGIN
        raise value_error(f"{format_value(written)} is not an origin", hint)
    scheme, below, host, port = (part and part.lower() for part in match.groups())
    if below and "." not in host:
        raise value_error(
            f"{format_value(written)} lets in every site below {host}", "name the domain too: https://*.example.com"
        )
    return f"{scheme}://{below or ''}{host}" + (f":{port}" if port and port != PORTS.get(scheme) else "")


@written(build_text("field name or `*`", rf"\*|{parsers.FIELD_NAME.pattern}", "X-API-Key"))
def read_header(value: object) -> str:
    """Read the name of a field that pages may send. `*` means any field."""
    return ANY if value == ANY else parsers.read_field_name(value)


Origin = Annotated[str, BeforeValidator(read_origin)]
Method = Annotated[str, BeforeValidator(readers.read_method)]
FieldName = Annotated[str, BeforeValidator(parsers.read_field_name)]


class Cors(Part):
    """Cross-origin requests (the Fetch standard, section 3.3).

    [Browsers](browsers.md) lists attacks that this does not prevent.

    ```yaml
    cors: {origins: ["https://app.example.com", "https://*.preview.example.com"], headers: [X-API-Key, Content-Type]}
    ```
    """

    origins: Annotated[tuple[Origin, ...], Field(min_length=1)] = Field(
        description="Origins whose pages may call. `https://*.example.com` is every site below `example.com`, but not "
        "`example.com` itself; `*` is any page. `null`, the origin of every sandboxed page, is refused."
    )
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = Field(
        default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), description="Methods that pages may use."
    )
    headers: tuple[Annotated[str, BeforeValidator(read_header)], ...] = Field(
        default=("Authorization", "Content-Type", "X-API-Key"),
        description="Fields that pages may send, in addition to the fields that every page may send. `*` is any.",
    )
    expose: tuple[FieldName, ...] = Field(
        default=(),
        description="Answer fields that pages may read, in addition to `RateLimit`, `RateLimit-Policy`, `Retry-After` "
        "and `X-Request-Id`.",
    )
    credentials: Annotated[bool, BeforeValidator(units.read_switch)] = Field(
        default=False,
        description="Lets browsers send cookies and show the answers to pages. For applications with sessions; API "
        "keys do not need it. Not with the origin `*`.",
    )
    max_age: Annotated[float, BeforeValidator(units.Time(0.0, 86_400.0))] = Field(
        default=600.0, description="How long browsers may cache these rules."
    )
