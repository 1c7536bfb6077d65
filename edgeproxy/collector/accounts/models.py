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
    """A new customer: the settings of `customers` in edge.yaml, and fields that edges do not see."""

    name: Annotated[Name, AfterValidator(parse_customer_name)]
    """The name of the customer; it cannot be changed."""
    external_id: Text | None = None
    """The id of the customer in another system."""
    metadata: Metadata | None = None
    """Your own texts, by name."""
    rotate_every: Span | None = None
    """The age that makes a key due for rotation, for example 90d. By default keys are never due."""

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
    __doc__="The fields of a customer to change. A missing field does not change; null removes it.",
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
    """The prefix of the key: letters and digits."""
    sha256: Digest | None = None
    """The SHA-256 of an existing key from another system, in hex digits. No secret is created then."""
    scopes: Scopes | None = None
    """The scopes that the key has; by default all."""
    limits: tuple[KeyLimit, ...] | None = None
    """The key's own limits. They apply in addition to the customer's limits."""
    budget: KeyBudgetRequest | None = None
    """The key's budget for a day or a month. A replacement key continues its count."""
    expires_at: End | None = None
    """The time when the key expires; by default never."""


class UpdateKeyRequest(_Limited):
    """The fields of a key to change. A missing field does not change; null removes it."""

    name: Text | None = None
    """A name for people."""
    scopes: Scopes | None = None
    """The scopes that the key has; null: all."""
    limits: tuple[KeyLimit, ...] | None = None
    """The key's own limits. They apply in addition to the customer's limits."""
    budget: KeyBudgetRequest | None = None
    """The key's budget for a day or a month. A replacement key continues its count."""
    expires_at: End | None = None
    """The time when the key expires; null: never."""


class RotateKeyRequest(Body):
    """The rotation of a key."""

    overlap: Span | None = None
    """The time that the old key stays valid, for example 7d; 0s ends it at once. By default `rotation.grace` of the
    collector's file, or 7d.
    """


class LeakReport(Body):
    """Keys that were found in public. The report needs the keys themselves, because a hash proves nothing."""

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
    """The customers that have a flag: a share of all, customers of tiers, and named customers."""


ShownKeyState = Literal["active", "rotating", "due", "expired", "revoked"]
"""The states of a key that the API shows."""


class Pause(TypedDict):
    """A customer that is not served."""

    why: str
    """The reason. Clients see it."""
    status: NotRequired[int]
    """The HTTP status of the edge's answers: 403 (the default) or 402."""


class RegionSettings(TypedDict):
    """The regions of a customer."""

    allow: NotRequired[list[str]]
    """The regions that the customer may use; by default all."""
    prefer: NotRequired[str]
    """The region that the customer prefers."""


class LimitSettings(TypedDict):
    """A rate limit, as in edge.yaml. Fields with their default value are missing."""

    name: str
    """The name of the limit."""
    rate: str
    """The number of requests in a time, for example `60/min`."""
    algorithm: NotRequired[AlgorithmName]
    """The algorithm; by default `sliding_window`."""
    burst: NotRequired[int]
    """The depth of the bucket, in requests."""
    scope: NotRequired[Literal["customer", "key", "ip", "route", "customer_route"]]
    """The requests that share the limit; by default all requests of the customer."""
    per: NotRequired[Literal["ip"] | dict[Literal["header", "query", "claim"], str]]
    """The place in a request that names the end user. Each end user has a limit of their own."""
    mode: NotRequired[Literal["enforce", "shadow"]]
    """`shadow` counts and refuses nothing; by default `enforce`."""
    sync: NotRequired[Literal["bounded", "eventual", "strict"]]
    """The precision with which edges agree on the count; by default `bounded`."""
    cost_header: NotRequired[str]
    """The response header field that states the cost of a request."""
    of: NotRequired[str]
    """The meter whose units are limited, instead of requests."""
    routes: NotRequired[list[str]]
    """The routes whose requests count: names, or patterns like `chat-*`; by default all."""
    scopes: NotRequired[list[str]]
    """Scopes. Requests of each route that requires one of these scopes count too."""
    reserve: NotRequired[int]
    """The units that a request reserves until its answer states the real usage."""


class QuotaSettings(TypedDict):
    """A quota, as in edge.yaml. Fields with their default value are missing."""

    meter: str
    """The meter that is counted."""
    included: int
    """The units that are included in a period."""
    per: NotRequired[Literal["day", "month"]]
    """The period of the count; missing if the quota limits items that exist at once."""
    cap: NotRequired[Literal["soft", "hard"]]
    """`soft` (the default) marks requests above the included units; `hard` refuses them."""
    timezone: NotRequired[str]
    """The time zone whose midnight starts a period, for example Europe/Berlin; by default UTC."""
    name: NotRequired[str]
    """The name of the quota."""
    routes: NotRequired[list[str]]
    """The routes whose requests are refused or marked once the quota is used up; by default the routes that feed its
    meter.
    """
    scopes: NotRequired[list[str]]
    """Scopes. Requests of each route that requires one of these scopes are refused or marked too."""


class CustomerResponse(TypedDict):
    """A customer."""

    id: str
    """The id of the customer."""
    name: str
    """The name of the customer."""
    tier: str
    """The tier that the customer pays for."""
    external_id: str | None
    """The id of the customer in another system; null if there is none."""
    metadata: dict[str, str]
    """The operator's own texts, by name."""
    flags: list[str]
    """The flags that are set for this customer by name."""
    paused: Pause | None
    """The reason why the customer is not served; null if it is served."""
    limits: list[LimitSettings] | None
    """The customer's own limits, as in edge.yaml; null if the tier's limits apply."""
    quotas: list[QuotaSettings] | None
    """The customer's own quotas, as in edge.yaml; null if the tier's quotas apply."""
    regions: RegionSettings | None
    """The regions that the customer may use and prefers; null if it may use all and prefers none."""
    rotate_every: str | None
    """The age that makes a key due for rotation, for example 90d; null if the customer has no such age."""
    created_at: str
    """The time when the customer was created."""
    state: Literal["active", "paused", "deleting", "deleted"]
    """`active`, `paused`, `deleting` or `deleted`."""
    currency: str | None
    """The currency of all charges, for example `usd`; null until a plan or credits set it. It cannot change later."""
    deleting_since: str | None
    """The time when the deletion began; null if the customer is not being deleted."""


CustomerMatch = Literal["id", "name", "external_id", "key", "email", "domain"]


class ListedCustomer(CustomerResponse):
    """A customer of a list."""

    matched: NotRequired[CustomerMatch]
    """The field that `search` matched; missing without `search`. `email` and `domain` belong to a contact."""
    plan: NotRequired[str | None]
    """The name of the customer's plan; null without one. This and the amounts below are missing if the caller may not
    see invoices.
    """
    spent: NotRequired[int | None]
    """The cost of the period at `spent_at`, in the currency's smallest unit, before tax; null without a plan, or if it
    is not known yet.
    """
    spent_at: NotRequired[str | None]
    """The time of `spent`, which is computed for one customer after another."""
    overdue: NotRequired[int]
    """The amount due of invoices that were due a day ago or earlier, in the currency's smallest unit. It is up to a
    minute old.
    """
    cap_percent: NotRequired[float | None]
    """The share of the day's spending cap that is used, in percent; null without a cap, or without usage on that day.
    """
    last_call_on: NotRequired[str | None]
    """The day (UTC) when a key of the customer was last used; null if none was."""


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
    """The first characters of the key, so that people can recognise it."""
    usage_key: str
    """The id of the key in usage by `key`: the first 16 digits of its SHA-256."""
    name: str | None
    """A name for people; null if there is none."""
    scopes: list[str] | None
    """The scopes that the key has; null: all."""
    limits: list[LimitSettings] | None
    """The key's own limits, as in edge.yaml; null if there are none."""
    budget: KeyBudgetTerms | None
    """The key's budget for a day or a month; null if the key may use as much as its customer."""
    created_at: str
    """The time when the key was created."""
    expires_at: str | None
    """The time when the key expires; null: never."""
    revoked_at: str | None
    """The time when the key was revoked; null if it is not revoked."""
    last_used_on: str | None
    """The day (UTC) of the key's last use; null if it was never used."""
    rotate_by: str | None
    """The deadline for rotating the key; null if there is none."""
    rotated_to: str | None
    """The id of the key that replaces this one; null if there is none."""
    restorable_until: str | None
    """The time until which an admin can restore the revoked key; null if it cannot be restored."""
    state: ShownKeyState
    """`active`, `rotating`, `due` (for rotation), `expired` or `revoked`."""


class KeyWithSecret(Key):
    """A key with its secret. No other response contains the secret."""

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
    """A search for a key by the key itself."""

    key: Secret
    """The key. It is in the body, because URLs are logged."""


class LeakReportResult(TypedDict):
    """The answer to a report. It does not tell whether such a key exists."""

    received: bool
    """Always true. It does not tell whether such a key exists."""


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
