"""Rules about single requests: what they look like, and what is done with those that do."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from edgeproxy.config import parsers, units
from edgeproxy.config.edge import readers
from edgeproxy.config.part import Part

CONDITIONS = ("path", "methods", "field", "larger")

Method = Annotated[str, BeforeValidator(readers.read_method)]


class RequestRule(Part):
    """A request is meant if all that is said here is true of it."""

    name: Annotated[str, BeforeValidator(parsers.read_name)]
    """What logs and metrics call it."""
    path: Annotated[str, BeforeValidator(readers.read_path)] | None = None
    """Its path: exact, or /admin/* for /admin and all that begins with /admin/."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] | None = None
    """Its method is one of these."""
    field: Annotated[str, BeforeValidator(parsers.read_field_name)] | None = None
    """It has this field."""
    contains: Annotated[str, BeforeValidator(parsers.read_sentence)] | None = None
    """Which contains this text, in any case."""
    larger: Annotated[int, BeforeValidator(units.read_bytes)] | None = None
    """Its body is larger, or of a length that it does not say."""
    action: Literal["deny", "log", "limit"] = "deny"
    """What is done: it is refused with 403, or passes and is logged, or passes within `rate`."""
    rate: Annotated[units.Rate, BeforeValidator(units.read_rate), PlainSerializer(str)] | None = None
    """How many of an address pass with the action limit; others are refused with 429."""
