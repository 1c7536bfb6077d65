"""Conditions of routes about fields and the query of a request: how they are written, and which requests meet them.

Gateway API calls them `headers` and queryParams, Envoy `headers` and query_parameters.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.edge.readers import REQUEST_FIELDS
from edgeproxy.config.edge.rewrites import A_VALUE, VALUE
from edgeproxy.config.edge.rules import UNSEEN_FIELDS
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.units import format_value, read_text, value_error

ANY: Final = "*"
"""The value that any value meets, also an empty one."""
CONDITIONS_MAX = 16
"""Maximum fields, and maximum parameters, that one route names."""
PARAMETER_CHARACTERS_MAX = 256
A_PARAMETER = f"up to {PARAMETER_CHARACTERS_MAX} characters, without percent-encoding"
UNMATCHED: Final = REQUEST_FIELDS | UNSEEN_FIELDS | {"cookie", "sec-websocket-protocol"}
"""Fields that the edge sets, removes or reads itself, or that may hold keys. No route can match them."""
HINTS: Final = {"host": "write host", "cookie": "it holds several values, and maybe a key"}


@written(build_text("field name", parsers.FIELD_NAME.pattern, "X-Version"))
def read_matched_field(value: object) -> str:
    """Read the name of a field that a route matches."""
    name = parsers.read_field_name(value)
    if name.lower() in UNMATCHED:
        hint = HINTS.get(name.lower(), "the edge sets or reads it itself")
        raise value_error(f"{format_value(name)} is not a field that routes match", hint)
    return name


@written(build_text("field value, or `*`", f"|{VALUE.pattern}", "2", ANY))
def read_matched_value(value: object) -> str:
    """Read the value of a field that a route matches; `*` is any value."""
    written = read_text(value, A_VALUE)
    if written and not VALUE.fullmatch(written):
        raise value_error(f"{format_value(written)} is not the value of a field", A_VALUE)
    return written


@written(build_text("name of a parameter", ".+", "version"))
def read_matched_parameter(value: object) -> str:
    """Read the name of a parameter in the query, in its decoded form."""
    name = read_text(value, A_PARAMETER)
    return _check_parameter(name) if name else _refuse_parameter(name)


@written(build_text("value of a parameter, or `*`", ".*", "2", ANY))
def read_matched_parameter_value(value: object) -> str:
    """Read the value of a parameter in the query, in its decoded form; `*` is any value."""
    return _check_parameter(read_text(value, A_PARAMETER))


def _check_parameter(text: str) -> str:
    return text if text.isprintable() and len(text) <= PARAMETER_CHARACTERS_MAX else _refuse_parameter(text)


def _refuse_parameter(text: str) -> str:
    raise value_error(f"{format_value(text)} is not a text of a query", A_PARAMETER)


Values = Annotated[
    tuple[Annotated[str, BeforeValidator(read_matched_value)], ...],
    Field(min_length=1),
    BeforeValidator(parsers.read_one_or_more),
]
ParameterValues = Annotated[
    tuple[Annotated[str, BeforeValidator(read_matched_parameter_value)], ...],
    Field(min_length=1),
    BeforeValidator(parsers.read_one_or_more),
]
HeaderConditions = Annotated[
    dict[Annotated[str, BeforeValidator(read_matched_field)], Values], Field(max_length=CONDITIONS_MAX)
]
QueryConditions = Annotated[
    dict[Annotated[str, BeforeValidator(read_matched_parameter)], ParameterValues], Field(max_length=CONDITIONS_MAX)
]


def covers(wide: Mapping[str, tuple[str, ...]], narrow: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether every request that meets `narrow` also meets `wide`."""
    return all(name in narrow and (ANY in values or set(narrow[name]) <= set(values)) for name, values in wide.items())
