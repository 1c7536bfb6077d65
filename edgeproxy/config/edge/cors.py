"""Cross-origin requests (the Fetch standard, section 3.3): which pages may call a route, and what they may see."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers, units
from edgeproxy.config.edge import readers
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

ANY = "*"
ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\*\.)?((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE
)
PORTS = {"http": "80", "https": "443"}
"""Which browsers leave out."""

AN_ORIGIN = "an origin such as https://app.example.com, https://*.example.com, or *"
A_NAME_OR_ANY = f"{parsers.A_FIELD_NAME}, or *"


def read_origin(value: object) -> str:
    """Read an origin as browsers send it: scheme, host, and a port that is not the scheme's own."""
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


def read_header(value: object) -> str:
    """Read the name of a field that pages may send; `*` is any."""
    return ANY if value == ANY else parsers.read_field_name(value)


Origin = Annotated[str, BeforeValidator(read_origin)]
Method = Annotated[str, BeforeValidator(readers.read_method)]
FieldName = Annotated[str, BeforeValidator(parsers.read_field_name)]


class Cors(Part):
    """Which pages of other origins may call, and what they may send and see."""

    origins: Annotated[tuple[Origin, ...], Field(min_length=1)]
    """Whose pages may call: https://app.example.com, https://*.example.com for all below it, or * for any."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    """With which methods."""
    headers: tuple[Annotated[str, BeforeValidator(read_header)], ...] = ("Authorization", "Content-Type", "X-API-Key")
    """Which fields they may send, beside those that every page may; * for any."""
    expose: tuple[FieldName, ...] = ()
    """Which fields of answers they may read, beside those of the edge itself and those that every page may."""
    credentials: Annotated[bool, BeforeValidator(units.read_switch)] = False
    """Whether browsers send cookies along; not with the origin *."""
    max_age: Annotated[float, BeforeValidator(units.Time(0.0, 86_400.0))] = 600.0
    """For how long browsers may keep what they are told, and not ask again."""
