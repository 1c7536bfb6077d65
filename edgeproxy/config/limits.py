"""Limits, quotas, caps and burst credits, as tiers, customers, keys and routes have them."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from edgeproxy.config import parsers, units
from edgeproxy.config.algorithms import (
    ALGORITHM_DESCRIPTION,
    BURST_DESCRIPTION,
    DEFAULT_ALGORITHM,
    DEFAULT_DEPTHS,
    RATE_DESCRIPTION,
    AlgorithmName,
)
from edgeproxy.config.end_users import Per
from edgeproxy.config.field_types import Count, FieldName, Name, Rate, Sentence
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.selection import HeldRoutes, HeldScopes

CREDITS = "credits"
"""Name of prepaid credits for clients."""


class Rated(Part):
    """A setting with a rate: at most `count` requests in any `window` seconds."""

    rate: Rate = Field(description="Requests in a time: `60/min`, `200/s`, `100/10s`.")

    @property
    def count(self) -> int:
        """Maximum requests in the window."""
        return self.rate.count

    @property
    def window(self) -> float:
        """Seconds."""
        return self.rate.seconds


class Limit(Rated):
    """A rate limit, identified by its scope, `per`, window, algorithm and mode.

    ```yaml
    tiers:
      basic:
        limits:
          - {rate: 60/min}                                               # any minute
          - {rate: 10/s, algorithm: token_bucket, burst: 30, scope: key} # 30 at once, and 10 more each second
          - {rate: 1000/day, mode: shadow}                               # how many would be refused?
    ```

    Two limits with equal scope, `per`, window, algorithm, mode, `routes` and `scopes` are an error. Usage survives
    another name, order or tier.
    """

    rate: Rate = Field(description=RATE_DESCRIPTION)
    name: Annotated[Name, FieldMark.FILLED] = Field(
        description="Label in the RateLimit fields. By default the tier's name, then `<tier>-2` and so on."
    )
    algorithm: AlgorithmName = Field(
        default=DEFAULT_ALGORITHM,
        description=ALGORITHM_DESCRIPTION,
    )
    burst: Count | None = Field(
        default=None,
        description=BURST_DESCRIPTION,
    )
    scope: Literal["customer", "key", "ip", "route", "customer_route"] = Field(
        default="customer",
        description="Requests that share the limit: those of a customer, a key, an address (IPv6: a /64), a route, or "
        "a customer on a route. In the tier `anonymous`, `customer` and `key` mean the address.",
    )
    per: Per | None = Field(
        default=None,
        description="Each [end user](limits.md#end-users) has a limit of their own, within the scope: `{header: "
        "X-End-User}`, `{query: user}`, `{claim: sub}` of a token, or `ip`. Requests without an end user count "
        "together, as one.",
    )
    routes: HeldRoutes = ()
    scopes: HeldScopes = ()
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce",
        description="`enforce` refuses requests above the limit with 429. `shadow` refuses nothing: the answer has "
        "`X-Edge-Shadow`, and a metric counts it. For trying a new limit.",
    )
    cost_header: FieldName | None = Field(
        default=None,
        description="Field of the upstream's answer with the cost of the request, such as `X-Cost: 12`. The cost is "
        "known only afterwards: the next request passes only when an excess is paid off. Without a whole number, or "
        "without an answer, the route's `cost` counts.",
    )
    of: Name | None = Field(
        default=None,
        description="Meter of a number in the answers' bodies, such as `total_tokens`. The rate then counts [its "
        "units](limits.md#limits-in-tokens) instead of requests. It applies to routes with `response_usage`. Not "
        "with `cost_header`, `mode: shadow` or `sync: strict`.",
    )
    reserve: Annotated[int | Literal["request"] | None, BeforeValidator(units.read_reserve)] = Field(
        default=None,
        description="Units that each request reserves until its answer states the real usage; only with `of`. A "
        "request passes if its units fit beside those of the requests under way. By default a hundredth of the count. "
        "`request`: [an estimate from its body](limits.md#what-a-request-reserves), its `max_tokens` and a quarter of "
        "its bytes.",
    )
    reserve_max: Count | None = Field(
        default=None,
        description="Maximum units that a request reserves, with `reserve: request`. A request whose body states "
        "nothing reserves as many. By default a tenth of the count.",
    )
    sync: Literal["bounded", "eventual", "strict"] = Field(
        default="bounded",
        description="How closely the hosts of a [hub](#hub) share the limit. `bounded`: in a burst and near the limit "
        "a request may wait once for the hub. `eventual`: no request waits, and bursts at several hosts may go well "
        "beyond the limit. `strict`: requests pass only if the hub has granted them, and most wait for it; without "
        "the hub nothing passes. For prepaid usage; not with `cost_header` or `of`.",
    )

    @property
    def counts_all(self) -> bool:
        """True if it also counts requests that it never refuses, because their cost is spent anyway."""
        return False

    @property
    def counts_requests(self) -> bool:
        """True if it counts requests and their costs at admission."""
        return self.cost_header is None and self.of is None

    @property
    def reserved(self) -> int:
        """Units that a request reserves, for a limit with `of`."""
        return self.reserve if isinstance(self.reserve, int) else max(1, self.count // 100)

    @property
    def reserved_most(self) -> int:
        """The maximum of units that a request may reserve."""
        if self.reserve != "request":
            return self.reserved
        return max(1, self.count // 10) if self.reserve_max is None else self.reserve_max

    @property
    def depth(self) -> int:
        """Depth of the bucket, or 0 if the algorithm has none."""
        default = DEFAULT_DEPTHS[self.algorithm]
        if default is None:
            return 0
        return default(self.count) if self.burst is None else self.burst

    @model_validator(mode="after")
    def _check_reserve(self) -> Self:
        most = min(self.count, self.depth or self.count)
        if self.of is not None and self.reserved_most > most:
            raise units.value_error(f"reserves {self.reserved_most}, and never has more than {most}", "reserve less")
        return self


class KeyLimit(Limit):
    """A limit of a key, in addition to the limits of its customer.

    It replaces a limit of the tier or the customer with `scope: key` and the same window, algorithm and mode.
    """

    name: Annotated[Name, FieldMark.FILLED] = Field(
        description="Label in the RateLimit fields. By default `key`, then `key-2` and so on."
    )
    scope: Literal["key"] = Field(
        default="key", description="Requests that share the limit: the requests with this key."
    )


class Quota(Part):
    """A quota of a meter, in a time and a time zone. Clients see it as `requests-month`.

    Usage that services report counts too: see [quotas](quotas.md). All usage of the meter counts. A used-up quota
    refuses only [the requests that it names](quotas.md#which-requests-a-quota-holds).
    """

    meter: Name = Field(description="Meter of the quota.")
    per: Literal["day", "month"] | None = Field(
        default=None,
        description="Calendar period after which the count starts again. Required, except for `holdings` and "
        "[levels](events.md#levels-with-a-cap): the number of things that [exist](quotas.md#what-exists) does not "
        "depend on a period.",
    )
    included: Annotated[int, BeforeValidator(units.Whole(0, (1 << 53) - 1))] = Field(
        description="Units that are included. Bytes and reports are known only after a request, so a request passes "
        "while any units are left."
    )
    cap: Literal["soft", "hard"] = Field(
        default="soft",
        description="`soft` lets further requests pass, with `X-Quota` in the answers; `hard` refuses them with 429.",
    )
    timezone: Annotated[str, BeforeValidator(parsers.read_timezone)] = Field(
        default="UTC", description="IANA time zone whose midnight begins the period."
    )
    routes: HeldRoutes = ()
    scopes: HeldScopes = ()

    @property
    def name(self) -> str:
        """The quota's name for clients, for example `requests-month` or `seats`."""
        return self.meter if self.per is None else f"{self.meter}-{self.per}"

    @property
    def count_name(self) -> str:
        """Name of the count. Quotas of one count share it."""
        return f"{self.meter}-{self.per}"


EntitlementPeriod = Annotated[str, Field(pattern=r"^(month(@[0-9]{1,10})?|ever@[0-9]{1,10})$")]


class Entitlement(Quota):
    """A customer's own quota in addition to the tier's quotas: from its plan, or from prepaid credits.

    The collector creates it for edges with a directory. It cannot be configured in files.
    """

    per: EntitlementPeriod | None = Field(  # type: ignore[assignment]
        default=None,
        description="`month`: a calendar month; `month@SECOND`: months counted from that Unix second; `ever@NUMBER`: "
        "for credits.",
    )
    why: Sentence | None = Field(default=None, description="Text for refused clients; None: the text for all quotas.")
    grace: int | None = Field(
        default=None, description="Seconds after which an exceeded soft quota refuses requests; None: never."
    )

    @property
    def name(self) -> str:
        """The quota's name for clients."""
        kind = (self.per or "").partition("@")[0]
        return {"": self.meter, "ever": CREDITS}.get(kind, f"{self.meter}-{kind}")

    @property
    def is_credits(self) -> bool:
        """True for a quota of prepaid credits. Once these are spent, the status is 402."""
        return self.per is not None and self.per.startswith("ever")


SPEND = "spend"
"""The ledger's name for the spending of a key."""


class KeyBudget(Quota):
    """A budget of a key and of its replacements: a hard quota that they share.

    The collector creates it for edges with a directory. It cannot be configured in files.
    """

    per: Literal["day", "month"]
    cap: Literal["hard"] = "hard"
    is_of_money: bool = Field(
        default=False,
        description="True for an amount of money, in the smallest unit of a currency. Only the ledger counts it, as "
        "SPEND.",
    )
    id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")] = Field(description="Id of the count.")
    why: Sentence = Field(description="Text for refused clients.")

    @property
    def name(self) -> str:
        """The budget's name for clients."""
        return "key-budget"

    @property
    def subject(self) -> str:
        """Subject of the count. No customer has this name."""
        return f"budget:{self.id}"


class Caps(Part):
    """Bounds of spending in millicredits (1,000,000 are one dollar), counted by the [meter](#metersname) `cost`.

    [Caps](quotas.md#caps) explains each. Not in the tier `anonymous`.
    """

    request: Count | None = Field(
        default=None,
        description="Maximum cost of a request. A route with a higher `cost` answers 429, so set that to the expected "
        "cost of its requests.",
    )
    day: Annotated[int, BeforeValidator(units.Whole(1, (1 << 53) - 1))] | None = Field(
        default=None, description="Maximum spending of a customer in a day (UTC): a hard quota, `cost-day`."
    )
    session: Rate | None = Field(
        default=None,
        description="Maximum spending of a customer in any time of this length: `100000/60min`. It is a limit, "
        "`session`, which counts the cost that the upstream reports.",
    )
    routes: HeldRoutes = ()
    scopes: HeldScopes = ()


class ConcurrencyLimit(Part):
    """A limit of concurrent requests. A number alone is its `max`.

    ```yaml
    tiers:
      basic: {concurrency: 2}
      pro:   {concurrency: {max: 10, routes: [chat]}}
    routes: [{name: chat, path: /v1/chat, upstream: api}]
    ```
    """

    max: Count = Field(description="Concurrent requests allowed.")
    routes: HeldRoutes = ()
    scopes: HeldScopes = ()


class Messages(Part):
    """Texts for refused clients, by the kind of limit. A text alone is for all kinds.

    ```yaml
    tiers:
      basic: {message: {rate: "Pro allows 600 requests in a minute", quota: "Write to sales@example.com for more"}}
    ```
    """

    rate: Sentence | None = Field(default=None, description="Text for refusals by rates.")
    concurrency: Sentence | None = Field(default=None, description="Text for refusals by concurrency.")
    quota: Sentence | None = Field(default=None, description="Text for refusals by quotas of tiers and customers.")
    plan: Sentence | None = Field(default=None, description="Text for refusals by a plan's included amounts.")
    cap: Sentence | None = Field(default=None, description="Text for refusals by caps.")
    budget: Sentence | None = Field(default=None, description="Text for refusals by budgets of keys.")
    credits: Sentence | None = Field(default=None, description="Text for refusals when credits are spent.")


Message = Annotated[
    Annotated[Messages, Tag(parsers.GIVEN)] | Annotated[Sentence, Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else parsers.GIVEN),
]


class BurstCredits(Part):
    """Burst credits. A customer earns them while it is within its limits, and spends them on requests beyond them.

    In a plan without limits they let requests pass while others are [shed](#overload).
    """

    earn: Rate = Field(description="Requests that are earned in a time: `10/s`.")
    max: Count = Field(description="Maximum number of requests saved up.")
