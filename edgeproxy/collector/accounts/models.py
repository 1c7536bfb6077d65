"""Requests that change customers, keys and flags, and the responses that show them. Settings of customers are written
as in edge.yaml.
"""

from typing import Annotated, Literal, NotRequired, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, create_model, model_validator
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts.fields import (
    Digest,
    End,
    LeakedKeys,
    Metadata,
    Prefix,
    Scopes,
    Secret,
    Span,
    Text,
    parse_customer_name,
)
from edgeproxy.collector.accounts.key_budgets import KeyBudgetRequest, KeyBudgetTerms
from edgeproxy.config.algorithms import AlgorithmName
from edgeproxy.config.customers import Customer, Flag
from edgeproxy.config.field_types import Name
from edgeproxy.config.key_form import PREFIX
from edgeproxy.config.limits import KeyLimit
from edgeproxy.config.parsers import NAME
from edgeproxy.config.units import value_error

LEAK_HINT = "send the key itself as key, or several as keys"


class Body(BaseModel):
    """The JSON object of a request; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def add_limit_names(body: object, default_name: str | None = None) -> object:
    """Return the body with a name for each limit without one, as files name it: after the tier, else the default."""
    limits = body.get("limits") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(limits, list):
        return body
    tier = body.get("tier")
    first = default_name or (tier if isinstance(tier, str) and NAME.fullmatch(tier) else "limit")
    names = (first[:60] if number == 1 else f"{first[:60]}-{number}" for number in range(1, len(limits) + 1))
    named = [
        {"name": name, **limit} if isinstance(limit, dict) else limit for name, limit in zip(names, limits, strict=True)
    ]
    return {**body, "limits": named}


def dump_settings(customer: Customer) -> JsonObject:
    """Return the settings of a customer as files write them, without default values."""
    settings: JsonObject = customer.model_dump(
        mode="json", by_alias=True, include=set(Customer.model_fields), exclude_defaults=True
    )
    return settings


class CreateCustomerRequest(Customer):
    """A new customer: the settings of `customers` in edge.yaml, and fields that edges do not get."""

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
    def name_limits(cls, body: object) -> object:
        """Return the body with a name for each limit."""
        return add_limit_names(body)


class _Change(Body):
    @model_validator(mode="before")
    @classmethod
    def name_limits(cls, body: object) -> object:
        """Return the body with a name for each limit."""
        return add_limit_names(body)


UpdateCustomerRequest: type[BaseModel] = create_model(
    "UpdateCustomerRequest",
    __base__=_Change,
    __doc__="The fields of a customer that change. A field that is missing stays; null takes it away.",
    **{
        name: (field.rebuild_annotation() | None, None)
        for name, field in CreateCustomerRequest.model_fields.items()
        if name != "name"
    },
)  # type: ignore[call-overload]


class _Limited(Body):
    @model_validator(mode="before")
    @classmethod
    def name_limits(cls, body: object) -> object:
        """Return the body with a name for each limit."""
        return add_limit_names(body, "key")


class CreateKeyRequest(_Limited):
    """A new key."""

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
    budget: KeyBudgetRequest | None = None
    """What the key may use in a day or a month; a key that replaces it goes on from there."""
    expires_at: End | None = None
    """The time at which the key ends; by default never."""


class UpdateKeyRequest(_Limited):
    """The fields of a key that change. A field that is missing stays; null takes it away."""

    name: Text | None = None
    """A name for people."""
    scopes: Scopes | None = None
    """The scopes that the key has; null: all."""
    limits: tuple[KeyLimit, ...] | None = None
    """Limits of the key's own, which apply beside those of the customer."""
    budget: KeyBudgetRequest | None = None
    """What the key may use in a day or a month; a key that replaces it goes on from there."""
    expires_at: End | None = None
    """The time at which the key ends; null: never."""


class RotateKeyRequest(Body):
    """The rotation of a key."""

    overlap: Span | None = None
    """The time for which the old key stays valid, such as 7d; 0s ends it at once. By default `rotation.grace` of the
    collector's file, or 7d."""


class LeakReport(Body):
    """Keys that were found in public: the keys themselves, as a hash is no proof."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    key: Secret | None = None
    """A leaked key itself."""
    keys: LeakedKeys | None = None
    """Several leaked keys."""

    @model_validator(mode="before")
    @classmethod
    def refuse_hashes(cls, body: object) -> object:
        """Raise a value error for a hash, which reports had in earlier versions."""
        if isinstance(body, dict) and "sha256" in body:
            raise value_error("a sha256 proves nothing: edges and their files show it", LEAK_HINT)
        return body

    @model_validator(mode="after")
    def require_key(self) -> Self:
        """Raise a value error unless the report names a key."""
        if self.key is None and self.keys is None:
            raise value_error("names no key", LEAK_HINT)
        return self

    @property
    def secrets(self) -> frozenset[str]:
        """Return the keys that the report names."""
        return frozenset(self.keys or ()) | ({self.key} if self.key is not None else frozenset())


class FlagRequest(Flag):
    """The customers that have a flag: a share of all, tiers, and names."""


ShownKeyState = Literal["active", "rotating", "due", "expired", "revoked"]
"""The states of a key that the API shows."""


class Pause(TypedDict):
    """A customer that is not served."""

    why: str
    """The reason, which clients see."""
    status: NotRequired[int]
    """The HTTP status that edges answer: 403, which is the default, or 402."""


class RegionSettings(TypedDict):
    """The regions of a customer."""

    allow: NotRequired[list[str]]
    """The regions that the customer may use; by default all."""
    prefer: NotRequired[str]
    """The region that the customer prefers."""


class LimitSettings(TypedDict):
    """A rate limit, as in edge.yaml; fields that are as by default are missing."""

    name: str
    """The name of the limit."""
    rate: str
    """The number of requests and the time for which it counts, such as `60/min`."""
    algorithm: NotRequired[AlgorithmName]
    """The algorithm; by default `sliding_window`."""
    burst: NotRequired[int]
    """The depth of the bucket, in requests."""
    scope: NotRequired[Literal["customer", "key", "ip", "route", "customer_route"]]
    """The subject that is counted; by default the customer."""
    per: NotRequired[Literal["ip"] | dict[Literal["header", "query", "claim"], str]]
    """The place where a request names the end user, each of whom has the limit for themselves."""
    mode: NotRequired[Literal["enforce", "shadow"]]
    """`shadow` counts and refuses nothing; by default `enforce`."""
    sync: NotRequired[Literal["bounded", "eventual", "strict"]]
    """The precision with which edges agree on the count; by default `bounded`."""
    cost_header: NotRequired[str]
    """The header field of answers that says what a request costs."""
    of: NotRequired[str]
    """The meter whose units are limited, in place of requests."""
    routes: NotRequired[list[str]]
    """The routes whose requests count: names, or patterns such as `chat-*`; by default all."""
    scopes: NotRequired[list[str]]
    """Scopes: requests of each route that asks for one of them count, too."""
    reserve: NotRequired[int]
    """The units that a request reserves until its answer has stated what it took."""


class QuotaSettings(TypedDict):
    """A quota, as in edge.yaml; fields that are as by default are missing."""

    meter: str
    """The meter that is counted."""
    included: int
    """The units that are included in a period."""
    per: NotRequired[Literal["day", "month"]]
    """The period after which the count begins again; missing where the quota counts what exists."""
    cap: NotRequired[Literal["soft", "hard"]]
    """`soft` marks requests above the included units, which is the default; `hard` refuses them."""
    timezone: NotRequired[str]
    """The time zone whose midnight begins a period, such as Europe/Berlin; by default UTC."""
    name: NotRequired[str]
    """The name of the quota."""
    routes: NotRequired[list[str]]
    """The routes whose requests the quota refuses or marks once it is used up; by default those that feed its meter."""
    scopes: NotRequired[list[str]]
    """Scopes: requests of each route that asks for one of them, too."""


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
    paused: Pause | None
    """The reason why the customer is not served; null where it is served."""
    limits: list[LimitSettings] | None
    """The customer's own limits, as in edge.yaml; null where the tier's apply."""
    quotas: list[QuotaSettings] | None
    """The customer's own quotas, as in edge.yaml; null where the tier's apply."""
    regions: RegionSettings | None
    """The regions that the customer may use and prefers; null where all are alike."""
    rotate_every: str | None
    """The age at which a key is due for rotation, such as 90d; null where there is none."""
    created_at: str
    """The time at which the customer was created."""
    state: Literal["active", "paused", "deleting", "deleted"]
    """`active`, `paused`, `deleting` or `deleted`."""
    currency: str | None
    """The currency in which it is charged for good, such as `usd`; null until a plan or credits have chosen one."""
    deleting_since: str | None
    """The time at which the deletion began; null where the customer is not being deleted."""


CustomerMatch = Literal["id", "name", "external_id", "key", "email", "domain"]


class ListedCustomer(CustomerResponse):
    """A customer of a list."""

    matched: NotRequired[CustomerMatch]
    """With `search`, what of the customer it matches: `email` and `domain` are those of a contact."""


class CustomerList(TypedDict):
    """A page of customers, oldest first."""

    customers: list[ListedCustomer]
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
    usage_key: str
    """The name of the key in usage by `key`: the first 16 digits of its SHA-256."""
    name: str | None
    """A name for people; null where there is none."""
    scopes: list[str] | None
    """The scopes that the key has; null: all."""
    limits: list[LimitSettings] | None
    """The limits of the key's own, as in edge.yaml; null where there are none."""
    budget: KeyBudgetTerms | None
    """What the key may use in a day or a month; null for as much as its customer may."""
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
    state: ShownKeyState
    """`active`, `rotating`, `due` (for rotation), `expired` or `revoked`."""


class KeyWithSecret(Key):
    """A key with its secret, which no other response has."""

    secret: NotRequired[str]
    """The key itself. No other response has it."""
    replaces: NotRequired[str]
    """The id of the key that this one replaces."""


class KeyList(TypedDict):
    """A page of keys, oldest first."""

    keys: list[Key]
    """The keys of this page, oldest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class FindKeyRequest(Body):
    """A key itself, which is looked for."""

    key: Secret
    """The key. It is in a body, as URLs are logged."""


class LeakReportResult(TypedDict):
    """The response to a report, whether there was such a key or not."""

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
