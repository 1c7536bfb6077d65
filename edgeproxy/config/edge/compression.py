"""Which answers of a route are compressed on their way to the client."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.part import Part
from edgeproxy.config.units import Size, format_value, read_text, value_error

MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/(?:[a-z0-9!#$&^_.+-]{1,64}|\*)")
A_MEDIA_TYPE = "a type such as application/json, or text/*"
ON = ("on", "true", "yes")
STREAMS = "text/event-stream"
"""Never compressed: its events are short, and some carry what nobody else may guess."""


def read_media_type(value: object) -> str:
    """Read a media type, in lower case; `text/*` is all of `text`."""
    written = read_text(value, A_MEDIA_TYPE)
    if not MEDIA_TYPE.fullmatch(written.lower()):
        raise value_error(f"{format_value(written)} is not a media type", A_MEDIA_TYPE)
    return written.lower()


def read_compress(value: object) -> object:
    """Read `on`, `off`, or a mapping."""
    return {} if isinstance(value, str) and value.lower() in ON else parsers.read_unless_off(value)


class Compress(Part):
    """Which answers are compressed, and how."""

    algorithms: Annotated[tuple[Literal["zstd", "gzip"], ...], Field(min_length=1)] = ("zstd", "gzip")
    """How, the best first; the first that a client takes is used."""
    types: Annotated[tuple[Annotated[str, BeforeValidator(read_media_type)], ...], Field(min_length=1)] = (
        *("text/*", "application/json", "application/problem+json", "application/javascript"),
        *("application/xml", "image/svg+xml"),
    )
    """Which types of content; text/* is all of text but text/event-stream."""
    min_size: Annotated[int, BeforeValidator(Size(1, 1 << 30))] = 1024
    """Answers that say that they are smaller stay as they are."""
