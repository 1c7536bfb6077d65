"""Customers and their keys, and flags, as the edge and the collector read them."""

from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)

from edgeproxy.config import parsers, units
from edgeproxy.config.certificate_names import add_certificate_digest, read_certificate_name
from edgeproxy.config.field_types import Moment, Name, Priority, ResidencyName, Scope, Sentence
from edgeproxy.config.forms import written
from edgeproxy.config.limits import (
    BurstCredits,
    Caps,
    ConcurrencyLimit,
    Entitlement,
    KeyBudget,
    KeyLimit,
    Limit,
    Message,
    Quota,
)
from edgeproxy.config.networks import Networks
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.selection import is_of_all
from edgeproxy.config.tree import FlatTable, Table


class Paused(Part):
    """A pause of a customer's service."""

    why: Sentence = Field(description="Reason for the customer.")
    status: Annotated[Literal[403, 402], BeforeValidator(units.read_pause)] = Field(
        default=403, description="Status of the answer; 402 if a payment would end the pause."
    )


class Regions(Part):
    """The regions of a customer."""

    allow: Annotated[tuple[Name, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="[Regions](#at-the-top) that serve the customer. Edges of all others answer 403. For data that "
        "must not leave a country. By default all.",
    )
    prefer: Name | None = Field(
        default=None, description="Region whose endpoints are used first; one of `allow`. By default the edge's region."
    )


def dump_concurrency(limit: ConcurrencyLimit | Literal["none"] | None) -> object:
    """Return a concurrency limit as directories write it.

    A limit of all requests is written as a plain number, which edges of earlier versions understand.
    """
    if limit is None or limit == "none" or not is_of_all(limit):
        return limit if limit is None or limit == "none" else limit.model_dump(mode="json", exclude_defaults=True)
    return limit.max


OwnConcurrency = Annotated[
    Annotated[ConcurrencyLimit, Tag(parsers.GIVEN)] | Annotated[Literal["none"], Tag("none")],
    Discriminator(lambda value: "none" if value == "none" else parsers.GIVEN),
    BeforeValidator(units.read_own_concurrency),
    PlainSerializer(dump_concurrency),
]
OwnCredits = Annotated[
    Annotated[BurstCredits, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]


class Customer(Part):
    """A customer. Each setting replaces only the same setting of the tier.

    ```yaml
    tiers:
      pro: {limits: [{rate: 600/min}], concurrency: 10}
    customers:
      acme: {tier: pro, limits: [{rate: 5000/min}], concurrency: none}   # own limits, any number at once
      late: {tier: pro, paused: {why: "The invoice of May is unpaid", status: 402}}
      near: {tier: pro, regions: {allow: [eu-west, eu-north], prefer: eu-west}}
    ```
    """

    tier: Name = Field(description="Tier of the customer.")
    limits: tuple[Limit, ...] | None = Field(
        default=None, description="Limits that replace the tier's; an empty list means none."
    )
    concurrency: OwnConcurrency | None = Field(
        default=None, description="Concurrency that replaces the tier's; `none`: any number."
    )
    quotas: tuple[Quota, ...] | None = Field(
        default=None, description="Quotas that replace the tier's; an empty list means none."
    )
    burst_credits: OwnCredits | None = Field(
        default=None, description="Burst credits that replace the tier's; `off`: none."
    )
    caps: Caps | None = Field(default=None, description="Caps that replace the tier's; an empty mapping means none.")
    priority: Priority | None = Field(default=None, description="Priority that replaces the tier's.")
    message: Message | None = Field(default=None, description="Message that replaces the tier's.")
    revoked: tuple[str, ...] = Field(
        default=(), description="Revoked tokens of [issuers](jwt.md), by their claim `jti`."
    )
    paused: Paused | None = Field(
        default=None, description="A pause: the customer is not served for now. The keys stay as they are."
    )
    regions: Regions | None = Field(default=None, description="Regions that serve the customer. By default all.")
    networks: Networks | None = Field(
        default=None,
        description="Networks where the customer's keys may be used. In other networks they get 403. By default all.",
    )
    flags: tuple[Name, ...] = Field(
        default=(), description="[Flags](#flagsname) of the customer, in addition to flags by tier and share."
    )
    moved: ResidencyName | None = Field(
        default=None,
        description="[Residency](residency.md#a-customer-moves) that the customer of a collector's database has moved "
        "to. It applies as soon as that residency's directory has the key.",
    )


class LimitRaise(Part):
    """A temporary raise of a customer's rates and concurrency. The collector creates it. Files cannot configure it."""

    factor: Annotated[int, BeforeValidator(units.Whole(2, 100))] = Field(
        description="Multiple of the tier's or the customer's limits."
    )
    ends_at: float = Field(description="End in Unix seconds. Edges ignore it afterwards, even without a collector.")


class Subscriber(Customer):
    """A customer in the directory: with the entitlements of its plan and its credits, and a raise of its limits."""

    entitled: tuple[Entitlement, ...] = Field(default=(), description="Quotas in addition to the tier's.")
    raised: LimitRaise | None = Field(default=None, description="Raise of rates and concurrency for a while.")


@written(lambda inner: inner)
def read_customers(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read customers by name. Equal flat mappings are read once: a hundred thousand customers may have only a tier."""
    if not isinstance(value, Table):
        return read(value)
    shared: dict[int, Customer] = {}
    for table in {id(each): each for each in value.values() if type(each) is FlatTable}.values():
        with suppress(ValidationError):  # It is read again below, with its place.
            shared[id(table)] = intern_customer(Customer.model_validate(table))
    others = {name: each for name, each in value.items() if id(each) not in shared or not parsers.NAME.fullmatch(name)}
    customers = {**read(others)} if others or not value else {}
    return {name: customers[name] if name in others else shared[id(each)] for name, each in value.items()}


@lru_cache(1024)
def intern_customer(customer: Customer) -> Customer:
    """Return the first of equal customers. A million of them may have only a tier."""
    return customer


class Key(Part):
    """A key: the hash of a secret, or the name in a certificate.

    A key is any text without spaces. `edgeproxy key add` makes `PREFIX_v1_RANDOM_CHECK`: [the form of a
    key](accounts.md#the-form-of-a-key).
    """

    sha256: Annotated[str, BeforeValidator(parsers.read_digest), FieldMark.FILLED] = Field(
        description="SHA-256 of the key in hex: `edgeproxy key add --customer NAME` prints the line."
    )
    certificate: Annotated[str, BeforeValidator(read_certificate_name)] | None = Field(
        default=None,
        exclude=True,
        description="Name in the customer's [certificate](tls.md#customers-by-certificate), instead of `sha256`.",
    )
    customer: Name = Field(description="Customer of the key.")
    scopes: frozenset[Scope] | None = Field(
        default=None, description="Scopes of the key. A route with `scopes` requires all of its scopes here."
    )
    expires: Moment | None = Field(
        default=None, description="End of the key: a date (its beginning in UTC) or an RFC 3339 time. By default never."
    )
    limits: tuple[KeyLimit, ...] = Field(default=(), description="Limits of this key, in addition to the customer's.")

    _digested = model_validator(mode="before")(add_certificate_digest)


PLAIN_KEY = {"sha256", "customer"}
"""The fields of most keys."""


class DirectoryKey(Key):
    """A key in the directory: with its budget."""

    budget: KeyBudget | None = Field(default=None, description="Budget in addition to the customer's quotas.")


class Flag(Part):
    """A flag: the customers who see the routes that name it.

    ```yaml
    flags: {new-api: {percent: 10, tiers: [pro], customers: [acme]}}
    tiers: {pro: {}}
    customers: {acme: {tier: pro}}
    routes: [{path: /v2/*, upstream: api, flag: new-api}]
    ```

    A customer in any of these groups has the flag. Requests without a key have it if `tiers` names `anonymous`. With a
    [`directory`](#directory), flags may be [in it](accounts.md#flags) instead.
    """

    percent: Annotated[int, BeforeValidator(units.Whole(0, 100))] = Field(
        default=0,
        description="Share of all customers. The choice is stable: the customers among 10 % are among 20 % too.",
    )
    tiers: tuple[Name, ...] = Field(default=(), description="Tiers whose customers have the flag.")
    customers: tuple[Name, ...] = Field(default=(), description="Customers who have the flag.")
