"""Types of the fields in requests about accounts. Each parses its value and has its JSON schema."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from edgeproxy.collector.accounts import ids
from edgeproxy.collector.languages.invisible import is_visible
from edgeproxy.config import field_codes, units
from edgeproxy.config.field_types import Scope
from edgeproxy.config.key_form import PREFIX_REGEX
from edgeproxy.config.parsers import DIGEST
from edgeproxy.config.units import value_error

TEXT_CHARACTERS_MAX = 255
METADATA_ENTRIES_MAX, METADATA_NAME_CHARACTERS_MAX, METADATA_CHARACTERS_MAX = 50, 40, 500
SCOPES_MAX = 100
SPAN_SECONDS_MAX = 3660 * 86400
SPAN_HINT = "whole seconds as a time such as 7d, 12h or 0s, of ten years at most"
PREFIX_HINT = "2 to 12 small letters and digits"
SHA256_HINT = "64 hex digits"
KEY_HINT = "the key as it was found, without spaces around it"
TEXT_HINT = f"1 to {TEXT_CHARACTERS_MAX} printable characters"
NOT_BLANK = r"^\s*[^\s\x00][^\x00]*$"
"""The pattern of a text on any number of lines."""
MOMENT_SECONDS_MAX = 4_102_444_800
"""The year 2100. A later end means never."""
KEY_CHARACTERS_MAX = 1000
SECRET = re.compile("[!-~](?:[ -~]*[!-~])?")
"""The form of a key that a client can send: visible ASCII, and spaces in between."""
LEAKED_KEYS_MAX = 100
"""The most keys in one report of leaked keys."""


def refuse_blank(value: object) -> object:
    """Return a value that is no empty text and has more than spaces.

    This and the functions below raise a value error.
    """
    if isinstance(value, str) and not value.strip():
        raise value_error("is empty", "write a text", field_codes.EMPTY)
    return value


def parse_text(value: object) -> str:
    """Return a text of 1 to TEXT_CHARACTERS_MAX printable characters, not all spaces."""
    text = units.read_text(refuse_blank(value), TEXT_HINT)
    if not (len(text) <= TEXT_CHARACTERS_MAX and is_visible(text)):
        raise value_error("cannot be used", TEXT_HINT, field_codes.NOT_PLAIN, most=TEXT_CHARACTERS_MAX)
    return text


def parse_metadata(value: object) -> dict[str, str]:
    """Return texts by name."""
    hint = f"at most {METADATA_ENTRIES_MAX} texts by names, of {METADATA_CHARACTERS_MAX} characters each"
    if not isinstance(value, dict) or len(value) > METADATA_ENTRIES_MAX:
        raise value_error("cannot be used", hint)
    for name, text in value.items():
        if not 1 <= len(name) <= METADATA_NAME_CHARACTERS_MAX or "\0" in name:
            raise value_error(
                f"{units.format_value(name)} is no name", f"1 to {METADATA_NAME_CHARACTERS_MAX} characters"
            )
        if not isinstance(text, str) or len(text) > METADATA_CHARACTERS_MAX or "\0" in text:
            raise value_error(f"{units.format_value(name)} is no text that can be stored", hint)
    return value


def parse_span(value: object) -> int:
    """Return the seconds of a time such as `7d`, `12h` or `0s`."""
    seconds = units.read_quantity(value, units.SECONDS, SPAN_HINT)
    if not seconds.is_integer() or seconds > SPAN_SECONDS_MAX:
        raise value_error(f"{units.format_value(str(value))} is out of range", SPAN_HINT, field_codes.SPAN_OUT_OF_RANGE)
    return int(seconds)


def parse_end(value: object) -> int:
    """Return the Unix milliseconds of an RFC 3339 time or a date."""
    second = units.read_moment(units.read_text(value, units.A_MOMENT))
    if not 0 <= second <= MOMENT_SECONDS_MAX:
        raise value_error("is out of range", "a time from 1970 to 2100", field_codes.TIME_OUT_OF_RANGE)
    return int(second * 1000)


def parse_scopes(value: object) -> list[object]:
    """Return a list of at most SCOPES_MAX scopes. Its own type validates each scope."""
    if not isinstance(value, list) or len(value) > SCOPES_MAX:
        raise value_error("is not a list that can be used", f"at most {SCOPES_MAX} scopes")
    return value


def parse_prefix(value: object) -> str:
    """Return a prefix of keys."""
    prefix = units.read_text(value, PREFIX_HINT)
    if not re.fullmatch(PREFIX_REGEX, prefix):
        raise value_error(f"{units.format_value(prefix)} is no prefix", PREFIX_HINT)
    return prefix


def parse_digest(value: object) -> str:
    """Return the SHA-256 of a key, in lower-case hex digits."""
    digest = units.read_text(value, SHA256_HINT)
    if not DIGEST.fullmatch(digest):
        raise value_error("is no SHA-256", SHA256_HINT)
    return digest.lower()


def parse_secret(value: object) -> str:
    """Return a key in the form that a client sends.

    Spaces around it are refused: they are not dropped, and are no part of it. Otherwise a report with them would be
    accepted like any other, and the key would keep working.
    """
    secret = units.read_text(value, KEY_HINT)
    if len(secret) > KEY_CHARACTERS_MAX or not SECRET.fullmatch(secret):
        raise value_error("is no key", KEY_HINT, field_codes.NOT_A_KEY)
    return secret


def parse_leaked_keys(value: object) -> list[object]:
    """Return a list of at most LEAKED_KEYS_MAX keys. Its own type validates each key."""
    if not isinstance(value, list) or not 1 <= len(value) <= LEAKED_KEYS_MAX:
        raise value_error("is not a list that can be used", f"1 to {LEAKED_KEYS_MAX} keys")
    return value


def parse_customer_name(value: object) -> str:
    """Return the name of a customer, if it does not have the form of an id or a pseudonym."""
    if isinstance(value, str) and ids.is_id(value):
        raise value_error("has the form of an id", "choose another name", field_codes.LOOKS_LIKE_ID)
    if isinstance(value, str) and ids.is_pseudonym(value):
        raise value_error("has the form of a pseudonym", "choose another name", field_codes.LOOKS_LIKE_ID)
    return str(value)


TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": TEXT_CHARACTERS_MAX, "pattern": "^ *[!-~][ -~]*$"}
SPAN_SCHEMA = {"type": "string", "pattern": r"^[0-9]{1,4} ?(s|min|h|d|day)$", "examples": ["7d", "0s"]}
END_SCHEMA = {"type": "string", "format": "date-time", "examples": ["2027-01-01T00:00:00Z"]}
METADATA_SCHEMA = {
    "type": "object",
    "maxProperties": METADATA_ENTRIES_MAX,
    "propertyNames": {"pattern": rf"^[ -~]{{1,{METADATA_NAME_CHARACTERS_MAX}}}$"},
    "additionalProperties": {"type": "string", "maxLength": METADATA_CHARACTERS_MAX, "pattern": r"^[^\u0000]*$"},
}

Text = Annotated[str, BeforeValidator(parse_text), WithJsonSchema(TEXT_SCHEMA)]
Metadata = Annotated[dict[str, str], BeforeValidator(parse_metadata), WithJsonSchema(METADATA_SCHEMA)]
Span = Annotated[int, BeforeValidator(parse_span), WithJsonSchema(SPAN_SCHEMA)]
End = Annotated[int, BeforeValidator(parse_end), WithJsonSchema(END_SCHEMA)]
SCOPES_SCHEMA = {
    "type": "array",
    "maxItems": SCOPES_MAX,
    "items": {"type": "string", "pattern": r"^[!#-\[\]-~]{1,64}$"},
}
Scopes = Annotated[frozenset[Scope], BeforeValidator(parse_scopes), WithJsonSchema(SCOPES_SCHEMA)]
Digest = Annotated[
    str, BeforeValidator(parse_digest), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
]
SECRET_SCHEMA = {"type": "string", "maxLength": KEY_CHARACTERS_MAX, "pattern": f"^{SECRET.pattern}$"}
Secret = Annotated[
    str,
    BeforeValidator(parse_secret),
    WithJsonSchema(SECRET_SCHEMA),
]
LeakedKeys = Annotated[
    tuple[Secret, ...],
    BeforeValidator(parse_leaked_keys),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": LEAKED_KEYS_MAX,
            "items": SECRET_SCHEMA,
        }
    ),
]
Prefix = Annotated[
    str, BeforeValidator(parse_prefix), WithJsonSchema({"type": "string", "pattern": f"^{PREFIX_REGEX}$"})
]
