"""What is sent to change customers, keys and flags, and what is told of them. Settings of customers are written as in
edge.yaml.
"""

import re
from typing import Annotated, Any, NotRequired, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    WithJsonSchema,
    create_model,
    model_validator,
)
from typing_extensions import TypedDict

from edgeproxy.collector.accounts import ids
from edgeproxy.config import units
from edgeproxy.config.customers import Customer, Flag
from edgeproxy.config.field_types import Name, Scope
from edgeproxy.config.key_form import PREFIX, PREFIX_REGEX
from edgeproxy.config.limits import KeyLimit
from edgeproxy.config.parsers import DIGEST, NAME
from edgeproxy.config.units import value_error

TEXT_CHARACTERS_MAX = 255
METADATA_ENTRIES_MAX, METADATA_NAME_CHARACTERS_MAX, METADATA_CHARACTERS_MAX = 50, 40, 500
SCOPES_MAX = 100
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "day": 86400}
SPAN = re.compile(rf"([0-9]{{1,6}}) ?({'|'.join(SECONDS)})")
SPAN_SECONDS_MAX = 3660 * 86400
SPAN_HINT = "a time such as 7d, 12h or 0s, of ten years at most"
PREFIX_HINT = "2 to 12 small letters and digits"
SHA256_HINT = "64 hex digits"
KEY_HINT = "the key as it was found"
LEAK_HINT = "send the key itself as key, or several as keys"
TEXT_HINT = f"1 to {TEXT_CHARACTERS_MAX} printable characters"
MOMENT_SECONDS_MAX = 4_102_444_800
"""The year 2100: what ends later never does."""
KEY_CHARACTERS_MAX = 1000
LEAKED_KEYS_MAX = 100
"""Keys that one report of leaked keys may name."""


def parse_text(value: object) -> str:
    """Read a text of printable characters."""
    text = units.read_text(value, TEXT_HINT)
    if not (1 <= len(text) <= TEXT_CHARACTERS_MAX and text.isprintable()):
        raise value_error("cannot be used", TEXT_HINT)
    return text


def parse_metadata(value: object) -> dict[str, str]:
    """Read texts by names."""
    hint = f"at most {METADATA_ENTRIES_MAX} texts by names, of {METADATA_CHARACTERS_MAX} characters each"
    if not isinstance(value, dict) or len(value) > METADATA_ENTRIES_MAX:
        raise value_error("cannot be used", hint)
    for name, text in value.items():
        if not 1 <= len(name) <= METADATA_NAME_CHARACTERS_MAX or "\0" in name:
            raise value_error(
                f"{units.format_value(name)} is no name", f"1 to {METADATA_NAME_CHARACTERS_MAX} characters"
            )
        if not isinstance(text, str) or len(text) > METADATA_CHARACTERS_MAX or "\0" in text:
            raise value_error(f"{units.format_value(name)} is no text that is kept", hint)
    return value


def parse_span(value: object) -> int:
    """Read a time in whole seconds: `7d`, `12h`, `0s`."""
    match = SPAN.fullmatch(units.read_text(value, SPAN_HINT))
    if match is None or int(match[1]) * SECONDS[match[2]] > SPAN_SECONDS_MAX:
        raise value_error("is no such time", SPAN_HINT)
    return int(match[1]) * SECONDS[match[2]]


def parse_end(value: object) -> int:
    """Read a moment in Unix milliseconds."""
    second = units.read_moment(units.read_text(value, units.A_MOMENT))
    if not 0 <= second <= MOMENT_SECONDS_MAX:
        raise value_error("is out of range", "a time from 1970 to 2100")
    return int(second * 1000)


def parse_scopes(value: object) -> list[Any]:
    """Read a list of scopes, which are read one by one."""
    if not isinstance(value, list) or len(value) > SCOPES_MAX:
        raise value_error("is not a list that can be used", f"at most {SCOPES_MAX} scopes")
    return value


def parse_prefix(value: object) -> str:
    """Read what keys begin with."""
    prefix = units.read_text(value, PREFIX_HINT)
    if not re.fullmatch(PREFIX_REGEX, prefix):
        raise value_error(f"{units.format_value(prefix)} is no prefix", PREFIX_HINT)
    return prefix


def parse_digest(value: object) -> str:
    """Read the SHA-256 of a key."""
    digest = units.read_text(value, SHA256_HINT)
    if not DIGEST.fullmatch(digest):
        raise value_error("is no SHA-256", SHA256_HINT)
    return digest.lower()


def parse_secret(value: object) -> str:
    """Read a key."""
    secret = units.read_text(value, KEY_HINT)
    if not (1 <= len(secret) <= KEY_CHARACTERS_MAX and secret.isascii() and secret.isprintable()):
        raise value_error("is no key", KEY_HINT)
    return secret


def parse_leaked_keys(value: object) -> list[Any]:
    """Return a list of leaked keys, which are read one by one."""
    if not isinstance(value, list) or not 1 <= len(value) <= LEAKED_KEYS_MAX:
        raise value_error("is not a list that can be used", f"1 to {LEAKED_KEYS_MAX} keys")
    return value


def parse_customer_name(value: object) -> str:
    """Read the name of a customer: one that cannot be taken for an id."""
    if isinstance(value, str) and ids.is_id(value):
        raise value_error("has the form of an id", "choose another name")
    return str(value)


TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": TEXT_CHARACTERS_MAX, "pattern": "^[ -~]+$"}
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
Secret = Annotated[
    str,
    BeforeValidator(parse_secret),
    WithJsonSchema({"type": "string", "pattern": f"^[ -~]{{1,{KEY_CHARACTERS_MAX}}}$"}),
]
LeakedKeys = Annotated[
    tuple[Secret, ...],
    BeforeValidator(parse_leaked_keys),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": LEAKED_KEYS_MAX,
            "items": {"type": "string", "pattern": f"^[ -~]{{1,{KEY_CHARACTERS_MAX}}}$"},
        }
    ),
]
Prefix = Annotated[
    str, BeforeValidator(parse_prefix), WithJsonSchema({"type": "string", "pattern": f"^{PREFIX_REGEX}$"})
]


class Body(BaseModel):
    """A JSON object that is sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def add_limit_names(body: Any, default_name: str | None = None) -> Any:
    """Give each limit that has no name the one that files would give it: after the tier, else `called`."""
    limits = body.get("limits") if isinstance(body, dict) else None
    if not isinstance(limits, list):
        return body
    tier = body.get("tier")
    first = default_name or (tier if isinstance(tier, str) and NAME.fullmatch(tier) else "limit")
    names = (first[:60] if number == 1 else f"{first[:60]}-{number}" for number in range(1, len(limits) + 1))
    named = [
        {"name": name, **limit} if isinstance(limit, dict) else limit for name, limit in zip(names, limits, strict=True)
    ]
    return {**body, "limits": named}


class CreateCustomerRequest(Customer):
    """A customer as it is made: the settings of `customers` in edge.yaml, and what is told of the customer beside."""

    name: Annotated[Name, AfterValidator(parse_customer_name)]
    """The name of the customer; it cannot be changed."""
    external_id: Text | None = None
    """The id of the customer in another system."""
    metadata: Metadata | None = None
    """Texts of your own, by name."""
    rotate_every: Span | None = None
    """The age at which a key is due for rotation, such as 90d; by default none."""

    @model_validator(mode="before")
    @classmethod
    def name_limits(cls, body: Any) -> Any:
        """Give limits their names."""
        return add_limit_names(body)


class _Change(Body):
    @model_validator(mode="before")
    @classmethod
    def name_limits(cls, body: Any) -> Any:
        """Give limits their names."""
        return add_limit_names(body)


CHANGEABLE: dict[str, Any] = {
    name: (field.rebuild_annotation() | None, None)
    for name, field in CreateCustomerRequest.model_fields.items()
    if name != "name"
}
UpdateCustomerRequest: type[BaseModel] = create_model(
    "UpdateCustomerRequest",
    __base__=_Change,
    __doc__="What is to be changed of a customer. What is not there stays; null takes it away.",
    **{
        name: (field.rebuild_annotation() | None, None)
        for name, field in CreateCustomerRequest.model_fields.items()
        if name != "name"
    },
)  # type: ignore[call-overload]


class _Limited(Body):
    @model_validator(mode="before")
    @classmethod
    def name_limits(cls, body: Any) -> Any:
        """Give limits their names."""
        return add_limit_names(body, "key")


class CreateKeyRequest(_Limited):
    """A key as it is made."""

    name: Text | None = None
    """A name for people."""
    prefix: Prefix = PREFIX
    """The letters and digits with which the key begins."""
    sha256: Digest | None = None
    """The SHA-256 of an existing key that moves here, in hex digits; no secret is created then."""
    scopes: Scopes | None = None
    """The scopes that the key has; by default all."""
    limits: tuple[KeyLimit, ...] | None = None
    """Limits of the key's own, which apply beside those of the customer."""
    expires_at: End | None = None
    """The time at which the key ends; by default never."""


class UpdateKeyRequest(_Limited):
    """What is to be changed of a key. What is not there stays; null takes it away."""

    name: Text | None = None
    """A name for people."""
    scopes: Scopes | None = None
    """The scopes that the key has; null: all."""
    limits: tuple[KeyLimit, ...] | None = None
    """Limits of the key's own, which apply beside those of the customer."""
    expires_at: End | None = None
    """The time at which the key ends; null: never."""


class RotateKeyRequest(Body):
    """How a key is replaced."""

    overlap: Span = 7 * 86400
    """The time for which the old key stays valid, such as 7d; 0s ends it at once."""


def _build_schema(field: str, kind: str) -> dict[str, Any]:
    """Return the schema of a body that has this field."""
    return {"required": [field], "properties": {field: {"type": kind}}}


class LeakReport(Body):
    """Keys that somebody found where they should not be: the keys themselves, as a hash is no proof."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [_build_schema("key", "string"), _build_schema("keys", "array")]}
    )

    key: Secret | None = None
    """A leaked key itself."""
    keys: LeakedKeys | None = None
    """Several leaked keys."""

    @model_validator(mode="before")
    @classmethod
    def refuse_hashes(cls, body: Any) -> Any:
        """Raise for a hash, which reports had in earlier versions."""
        if isinstance(body, dict) and "sha256" in body:
            raise value_error("a sha256 proves nothing: edges and their files show it", LEAK_HINT)
        return body

    @model_validator(mode="after")
    def require_key(self) -> Self:
        """Raise unless the report names a key."""
        if self.key is None and self.keys is None:
            raise value_error("names no key", LEAK_HINT)
        return self

    @property
    def secrets(self) -> frozenset[str]:
        """The keys that the report names."""
        return frozenset(self.keys or ()) | ({self.key} if self.key is not None else frozenset())


class FlagRequest(Flag):
    """Who has a flag: a share of all customers, tiers and customers."""


class CustomerResponse(TypedDict):
    """A customer."""

    id: str
    """The id of the customer."""
    name: str
    """The name of the customer."""
    tier: str
    """The tier that the customer pays for."""
    external_id: str | None
    """The id of the customer in another system; null where there is none."""
    metadata: dict[str, str]
    """Texts of the operator's own, by name."""
    flags: list[str]
    """The flags that the customer has of its own."""
    paused: dict[str, Any] | None
    """`why` the customer is not served and with which `status`; null where it is served."""
    limits: list[dict[str, Any]] | None
    """The customer's own limits, as in edge.yaml; null where the tier's apply."""
    quotas: list[dict[str, Any]] | None
    """The customer's own quotas, as in edge.yaml; null where the tier's apply."""
    regions: dict[str, Any] | None
    """The regions that the customer may use (`allow`) and prefers (`prefer`); null where all are alike."""
    rotate_every: str | None
    """The age at which a key is due for rotation, such as 90d; null where there is none."""
    created_at: str
    """The time at which the customer was created."""
    state: str
    """`active`, `paused`, `deleting` or `deleted`."""
    deleting_since: str | None
    """The time at which the deletion began; null where the customer is not being deleted."""


class CustomerList(TypedDict):
    """A page of customers, oldest first."""

    customers: list[CustomerResponse]
    """The customers of this page, oldest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class Key(TypedDict):
    """A key, without its secret."""

    id: str
    """The id of the key."""
    customer: str
    """The customer that the key belongs to, by name."""
    start: str
    """The first characters of the key, by which people recognise it."""
    name: str | None
    """A name for people; null where there is none."""
    scopes: list[str] | None
    """The scopes that the key has; null: all."""
    limits: list[dict[str, Any]] | None
    """The limits of the key's own, as in edge.yaml; null where there are none."""
    created_at: str
    """The time at which the key was created."""
    expires_at: str | None
    """The time at which the key ends; null: never."""
    revoked_at: str | None
    """The time at which the key was revoked; null where it was not."""
    last_used_on: str | None
    """The day in UTC on which the key was last used; null where it was not."""
    rotate_by: str | None
    """The time by which the key should be rotated; null where there is none."""
    rotated_to: str | None
    """The id of the key that replaces this one; null where there is none."""
    restorable_until: str | None
    """The time until which an admin can take the revocation back; null where none can."""
    state: str
    """`active`, `rotating`, `due` (for rotation), `expired` or `revoked`."""


class KeyWithSecret(Key):
    """A key, with its secret, which is told this once."""

    secret: NotRequired[str]
    """The key itself. It is in this answer alone."""
    replaces: NotRequired[str]
    """The id of the key that this one replaces."""


class KeyList(TypedDict):
    """A page of keys, oldest first."""

    keys: list[Key]
    """The keys of this page, oldest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class LeakReportResult(TypedDict):
    """What is said whether there was such a key or not."""

    received: bool
    """Always true, whether there was such a key or not."""


class FlagResponse(TypedDict):
    """A flag."""

    name: str
    """The name of the flag."""
    percent: int
    """The share of customers that has the flag, in percent."""
    tiers: list[str]
    """The tiers whose customers have the flag."""
    customers: list[str]
    """The customers that have the flag, by name."""
    updated_at: str
    """The time of the last change."""


class FlagList(TypedDict):
    """All flags."""

    flags: list[FlagResponse]
    """The flags."""
