"""Compression of a route's answers."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.forms import OFF, build_any_of, build_text, build_words, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import Size, format_value, read_text, value_error

MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/(?:[a-z0-9!#$&^_.+-]{1,64}|\*)")
A_MEDIA_TYPE = "a type such as application/json, or text/*"
ON = ("on", "true", "yes")
STREAMS = "text/event-stream"
"""Never compressed: its events are short, and some contain secrets."""


@written(build_text("media type", rf"(?i:{MEDIA_TYPE.pattern})", "application/json"))
def read_media_type(value: object) -> str:
    """Read a media type in lower case. `text/*` means all of `text`."""
    written = read_text(value, A_MEDIA_TYPE)
    if not MEDIA_TYPE.fullmatch(written.lower()):
        raise value_error(f"{format_value(written)} is not a media type", A_MEDIA_TYPE)
    return written.lower()


@written(lambda inner: build_any_of(build_words("on", True), OFF, inner), lambda _: "off")
def read_compress(value: object) -> object:
    """Read `on`, `off`, or a mapping."""
    return {} if isinstance(value, str) and value.lower() in ON else parsers.read_unless_off(value)


class Compress(Part):
    """Compression of a route's answers: [when it helps](compression.md).

    ```yaml
    routes: [{path: /reports/*, upstream: api, compress: {types: [text/csv, application/json], min_size: 4KiB}}]
    ```
    """

    algorithms: Annotated[tuple[Literal["zstd", "gzip"], ...], Field(min_length=1)] = Field(
        default=("zstd", "gzip"),
        description="Algorithms in order of preference. The first one in `Accept-Encoding` is used.",
    )
    types: Annotated[tuple[Annotated[str, BeforeValidator(read_media_type)], ...], Field(min_length=1)] = Field(
        default=(
            *("text/*", "application/json", "application/problem+json", "application/javascript"),
            *("application/xml", "image/svg+xml"),
        ),
        description="Media types to compress. `text/*` is all of `text` except `text/event-stream`, which is never "
        "compressed.",
    )
    min_size: Annotated[int, BeforeValidator(Size(1, 1 << 30))] = Field(
        default=1024, description="Minimum size. An answer that states a smaller size is not compressed."
    )
