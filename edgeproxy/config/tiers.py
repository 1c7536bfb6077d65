"""Tiers: the settings that all their customers share."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers, units
from edgeproxy.config.field_types import Priority
from edgeproxy.config.limits import BurstCredits, Caps, ConcurrencyLimit, Limit, Message, Quota
from edgeproxy.config.part import Part


class Tier(Part):
    """A tier: the limits of each of its customers.

    ```yaml
    tiers:
      basic: {limits: [{rate: 60/min}], concurrency: 2, message: "Write to sales@example.com for more"}
      pro:
        limits: [{rate: 600/min}, {name: pro-burst, rate: 50/s}]         # both must hold
        concurrency: 10
        quotas: [{meter: requests, per: month, included: 1000000, timezone: Europe/Berlin}]
      enterprise: {burst_credits: {earn: 10/s, max: 600}, priority: 1}   # no limit
    ```

    The tier `anonymous` limits requests without a key. Each address has its own limits.
    """

    limits: tuple[Limit, ...] = Field(
        default=(), description="Rate limits of each customer. A request must fit all of them."
    )
    concurrency: Annotated[ConcurrencyLimit | None, BeforeValidator(units.read_concurrency_limit)] = Field(
        default=None,
        description="Concurrent requests of a customer, until the answer has ended or the client has left; beyond it "
        "429. For long work that a rate does not limit.",
    )
    quotas: tuple[Quota, ...] = Field(
        default=(), description="Units that are included in a calendar day or month, or that may exist at once."
    )
    burst_credits: Annotated[BurstCredits | None, BeforeValidator(parsers.read_unless_off)] = Field(
        default=None, description="Requests that may be saved up for later."
    )
    caps: Caps | None = Field(default=None, description="Bounds of spending, in millicredits.")
    priority: Priority = Field(
        default=0, description="Order of [shedding](#overload). Requests of the lowest priority get 503 first."
    )
    message: Message | None = Field(
        default=None, description="Text for refused clients after the reason, such as a contact for more."
    )
    analytics: Annotated[float | None, BeforeValidator(units.read_analytics)] = Field(
        default=None,
        description="How far back customers see their own usage in detail ([`GET "
        "/v1/usage`](usage.md#how-far-back-customers-see)), such as `30day`. Older usage is shown as totals of "
        "whole months. By default there is no end.",
    )
