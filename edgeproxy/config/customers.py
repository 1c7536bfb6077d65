"""Customers and their keys, and flags, as the edge and the collector read them."""

from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from edgeproxy.config import parsers, units
from edgeproxy.config.certificate_names import add_certificate_digest, read_certificate_name
from edgeproxy.config.field_types import Moment, Name, Priority, Scope, Sentence
from edgeproxy.config.limits import BurstCredits, Caps, Entitlement, KeyLimit, Limit, Quota
from edgeproxy.config.networks import Networks
from edgeproxy.config.part import Part


class Paused(Part):
    """Why a customer is not served for now."""

    why: Sentence
    """What the customer is told."""
    status: Annotated[Literal[403, 402], BeforeValidator(units.read_pause)] = 403
    """The status of the answer: 403, or 402 where it is about a payment."""


class Regions(Part):
    """Where a customer is served."""

    allow: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """The regions that serve the customer; all others refuse. By default all serve."""
    prefer: Name | None = None
    """The region whose endpoints are asked first; by default that of the edge."""


OwnConcurrency = Annotated[int | Literal["none"], BeforeValidator(units.read_own_concurrency)]
OwnCredits = Annotated[
    Annotated[BurstCredits, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]


class Customer(Part):
    """Who pays. What is said here replaces what the tier says."""

    tier: Name
    """The tier that the customer pays for."""
    limits: tuple[Limit, ...] | None = None
    """The customer's own limits. They replace the tier's, even where there are none in the list."""
    concurrency: OwnConcurrency | None = None
    """The customer's own number of requests at once; `none`: any, whatever the tier says."""
    quotas: tuple[Quota, ...] | None = None
    """The customer's own quotas. They replace the tier's, even where there are none in the list."""
    burst_credits: OwnCredits | None = None
    """The customer's own burst credits; `off`: none, whatever the tier says."""
    caps: Caps | None = None
    """The customer's own caps. They replace the tier's, even where there are none in the mapping."""
    priority: Priority | None = None
    """The customer's own priority."""
    message: Sentence | None = None
    """What is said to this customer on refusal, instead of what the tier says."""
    revoked: tuple[str, ...] = ()
    """Tokens of issuers that count no longer, by their claim jti."""
    paused: Paused | None = None
    """Why the customer is not served for now; by default they are."""
    regions: Regions | None = None
    """Where the customer is served; by default everywhere."""
    networks: Networks | None = None
    """From where the customer may come; by default from everywhere."""
    flags: tuple[Name, ...] = ()
    """Flags that the customer has, whatever is said of them elsewhere."""


class Subscriber(Customer):
    """A customer as the directory tells of it: with what follows from its plan and its credits."""

    entitled: tuple[Entitlement, ...] = ()
    """Quotas beside those of the tier."""


@lru_cache(1024)
def intern_customer(customer: Customer) -> Customer:
    """Return the first of equal customers: a million may have a tier, and nothing else."""
    return customer


class Key(Part):
    """A secret that a customer sends, of which only the hash is known here; or the name in a certificate."""

    sha256: Annotated[str, BeforeValidator(parsers.read_digest)]
    """The SHA-256 of the key in hex (lower case once read); `edgeproxy key new` prints it."""
    certificate: Annotated[str, BeforeValidator(read_certificate_name)] | None = Field(default=None, exclude=True)
    """In place of `sha256`, the name in the customer's certificate."""
    customer: Name
    """Whose key it is."""
    scopes: frozenset[Scope] | None = None
    """What the key may do: a route that asks for scopes wants all of them here. By default nothing of that kind."""
    expires: Moment | None = None
    """When the key ends: a date (its beginning in UTC), or a time as in RFC 3339."""
    limits: tuple[KeyLimit, ...] = ()
    """Limits of this key, beside those of the customer."""

    _digested = model_validator(mode="before")(add_certificate_digest)


class Flag(Part):
    """Who sees the routes that name it: whoever is in any of these."""

    percent: Annotated[int, BeforeValidator(units.Whole(0, 100))] = 0
    """A share of the customers, always the same ones; those of a smaller share are among those of a larger."""
    tiers: tuple[Name, ...] = ()
    """All customers of these tiers."""
    customers: tuple[Name, ...] = ()
    """These customers."""
