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

    The tier `anonymous` holds requests without a key, each address by itself.
    """

    limits: tuple[Limit, ...] = Field(default=(), description="Rate limits of each customer. All must hold.")
    concurrency: Annotated[ConcurrencyLimit | None, BeforeValidator(units.read_concurrency_limit)] = Field(
        default=None,
        description="Requests that a customer may have under way, until the answer has ended or the client has left; "
        "beyond it 429. For long work, which a rate does not see.",
    )
    quotas: tuple[Quota, ...] = Field(
        default=(), description="Amounts that are included in a calendar day or month, or may exist at once."
    )
    burst_credits: Annotated[BurstCredits | None, BeforeValidator(parsers.read_unless_off)] = Field(
        default=None, description="Requests that may be saved up for later."
    )
    caps: Caps | None = Field(default=None, description="Bounds of spending, in millicredits.")
    priority: Priority = Field(
        default=0, description="Order of [shedding](#overload): requests of the lowest priority get 503 first."
    )
    message: Message | None = Field(
        default=None, description="Text for refused clients behind the reason, such as whom to ask for more."
    )
    analytics: Annotated[float | None, BeforeValidator(units.read_analytics)] = Field(
        default=None,
        description="How far back customers see their own usage in detail ([`GET "
        "/v1/usage`](usage.md#how-far-back-customers-see)), such as `30day`; before that as totals of whole months. "
        "By default always.",
    )
