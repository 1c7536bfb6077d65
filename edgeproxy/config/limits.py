"""Limits, quotas, caps and burst credits, as tiers, customers, keys and routes have them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers, units
from edgeproxy.config.algorithms import DEFAULT_ALGORITHM, DEFAULT_DEPTHS, AlgorithmName
from edgeproxy.config.field_types import Count, FieldName, Name, Rate, Sentence
from edgeproxy.config.part import Part

CREDITS = "credits"
"""What clients call what was paid in advance."""


class Rated(Part):
    """Whatever has a rate: at most `count` requests in any `window` seconds."""

    rate: Rate
    """How many requests in which time: 60/min, 200/s, 100/10s."""

    @property
    def count(self) -> int:
        """Requests that the window may hold."""
        return self.rate.count

    @property
    def window(self) -> float:
        """Seconds."""
        return self.rate.seconds


class Limit(Rated):
    """One limit of a tier or of a customer. It is what it limits, its scope, window, algorithm and mode."""

    name: Name
    """A label that clients see; by default the tier's name, then <tier>-2 and so on."""
    algorithm: AlgorithmName = DEFAULT_ALGORITHM
    """How requests are counted: in a window that slides with the time, in a bucket that the rate empties, or both."""
    burst: Count | None = None
    """How deep the bucket is. By default a token_bucket holds the rate's count, and a hybrid a tenth of it."""
    scope: Literal["customer", "key", "ip", "route", "customer_route"] = "customer"
    """What shares the limit: the requests of a customer, a key, an address, a route, or of a customer on a route."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """What happens above the limit: the request is refused; shadow: an answer's field says that it would have been."""
    cost_header: FieldName | None = None
    """The field in which the upstream's answer says how much a request counts for."""
    sync: Literal["bounded", "eventual", "strict"] = "bounded"
    """How closely the hosts of a hub keep it: bounded may ask the hub first, eventual never does, strict always."""

    @property
    def depth(self) -> int:
        """What the bucket holds; 0 where the algorithm has none."""
        default = DEFAULT_DEPTHS[self.algorithm]
        if default is None:
            return 0
        return default(self.count) if self.burst is None else self.burst


class KeyLimit(Limit):
    """One limit of a key, beside those of its customer."""

    name: Name
    """A label that clients see; by default key, then key-2 and so on."""
    scope: Literal["key"] = "key"
    """What shares the limit: the requests of the key."""


class Quota(Part):
    """How much of a meter is included in a day or a month of the calendar, or at any time."""

    meter: Name
    """What is counted."""
    per: Literal["day", "month"] | None = None
    """After which time the count begins anew; None: never, as it is of what exists."""
    included: Annotated[int, BeforeValidator(units.Whole(0, (1 << 53) - 1))]
    """How much of it is included."""
    cap: Literal["soft", "hard"] = "soft"
    """What happens above: soft lets requests pass and marks them, hard refuses them."""
    timezone: Annotated[str, BeforeValidator(parsers.read_timezone)] = "UTC"
    """Whose midnight begins a day or a month, such as Europe/Berlin."""

    @property
    def name(self) -> str:
        """What clients call it, such as `requests-month`, or `seats`."""
        return self.meter if self.per is None else f"{self.meter}-{self.per}"

    @property
    def count_name(self) -> str:
        """What its count is called: quotas of one count have one name."""
        return f"{self.meter}-{self.per}"


class Entitlement(Quota):
    """A quota that a customer has beside those of its tier: by its plan, or by credits that were bought in advance.

    The collector makes them, for edges of the directory; no file says so.
    """

    per: Annotated[str | None, Field(pattern=r"^(month(@[0-9]{1,10})?|ever@[0-9]{1,10})$")] = None  # type: ignore[assignment]
    """`month`: of the calendar; `month@SECOND`: counted from that Unix second on; `ever@NUMBER`: of credits."""
    why: Sentence | None = None
    """What is said to those whom it refuses; None: what is said of any quota."""
    grace: int | None = None
    """Seconds after which a soft one refuses, once it was passed; None: it never does."""

    @property
    def name(self) -> str:
        """What clients call it."""
        kind = (self.per or "").partition("@")[0]
        return {"": self.meter, "ever": CREDITS}.get(kind, f"{self.meter}-{kind}")

    @property
    def is_credits(self) -> bool:
        """Whether it is what was bought in advance: once that is spent, answers are 402."""
        return self.per is not None and self.per.startswith("ever")


class Caps(Part):
    """What may be spent at most, in millicredits, as the meter `cost` counts it."""

    request: Count | None = None
    """By a request, as the route's `cost` foretells; by default any number."""
    day: Annotated[int, BeforeValidator(units.Whole(1, (1 << 53) - 1))] | None = None
    """In a day of UTC; by default any number."""
    session: Rate | None = None
    """In any time of that length: 100000/60min; by default any number."""


class BurstCredits(Part):
    """What is earned while a customer is within the limits, and spent beyond them."""

    earn: Rate
    """How many requests are earned in which time: 10/s."""
    max: Count
    """How many can be saved up."""
