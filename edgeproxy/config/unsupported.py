"""What the contract promises and a later version brings: known names whose use is refused, never ignored.

`LATER` has a row for each: where it stands (`*` is any name or index), the shape of its value, and what to write
instead. Where a field works already with other values, these are in the models, and only a value of the row's
shape is refused.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ConfigDict, Field

from edgeproxy.config import kinds, units
from edgeproxy.config.models import Duration, Name, Part, Rate, Rated, Switch
from edgeproxy.config.problems import Steps
from edgeproxy.config.tree import Items, Table, Value

Count = Annotated[int, BeforeValidator(units.Whole(1, units.LARGEST_COUNT))]
Number = Annotated[int, BeforeValidator(units.Whole(0, (1 << 53) - 1))]
HubUrl = Annotated[str, BeforeValidator(kinds.Form(r"(redis|rediss|redis\+cluster)://.*", "redis://HOST:PORT"))]
AnyHubUrl = Annotated[
    str, BeforeValidator(kinds.Form(r"(memory|redis|rediss|redis\+cluster)://.*", "redis://HOST:PORT"))
]

Algorithm = Literal["token_bucket", "hybrid"]
Scope = Literal["key", "ip", "route", "customer_route"]
Sync = Literal["bounded", "eventual", "strict"]


class Shape(Part):
    """A mapping that is to come, any of its fields being left out. Built once one is met."""

    model_config = ConfigDict(defer_build=True)


class Hub(Shape):
    """Where edges agree on limits."""

    url: AnyHubUrl | None = None
    sync: Duration | None = None
    on_loss: Literal["share", "full", "deny"] | None = None


class Tls(Shape):
    """TLS towards the collector."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    verify: Switch | None = None


class Usage(Shape):
    """Where usage is shipped."""

    collector: str | None = None
    token: str | None = None
    every: Duration | None = None
    tls: Tls | None = None


class Flag(Shape):
    """Who sees a flagged route."""

    percent: Annotated[int, BeforeValidator(units.Whole(0, 100))] | None = None
    tiers: tuple[Name, ...] | None = None
    customers: tuple[Name, ...] | None = None


class Directory(Shape):
    """Where further people come from."""

    source: Literal["collector", "hub"] | None = Field(default=None, alias="from")
    ttl: Duration | None = None


class Quota(Shape):
    """How much of a meter is included in a day or a month."""

    meter: Name | None = None
    per: Literal["day", "month"] | None = None
    included: Number | None = None
    cap: Literal["soft", "hard"] | None = None
    timezone: str | None = None


class BurstCredits(Shape):
    """What may be saved up for later."""

    earn: Rate | None = None
    max: Count | None = None


class Paused(Shape):
    """Why a customer is not served for now."""

    why: str | None = None
    status: Literal["403", "402"] | None = None


class Regions(Shape):
    """Where a customer is served."""

    allow: tuple[Name, ...] | None = None
    prefer: Name | None = None


class AnyLimit(Rated, Shape):
    """A limit of any kind."""

    name: Name | None = None
    algorithm: Literal["sliding_window"] | Algorithm | None = None
    burst: Count | None = None
    scope: Literal["customer"] | Scope | None = None
    mode: Literal["enforce", "shadow"] | None = None
    sync: Sync | None = None
    cost_header: str | None = None


class Later(NamedTuple):
    """What is to come at one place: the type of its value, and what to write until then."""

    shape: Any
    instead: str = "leave it out"
    mapping: Any = None
    """The type of its value where that is a mapping, if it may be one too."""


PLAN = {
    "concurrency": Later(Count),
    "quotas": Later(tuple[Quota, ...]),
    "burst_credits": Later(BurstCredits),
    "priority": Later(Number),
    "message": Later(str),
    "caps": Later(Any),
}
"""What tiers and customers will have."""

LIMIT = {
    "algorithm": Later(Algorithm, "write sliding_window"),
    "burst": Later(Count),
    "scope": Later(Scope, "write customer"),
    "mode": Later(Literal["shadow"], "write enforce"),
    "sync": Later(Sync),
    "cost_header": Later(str),
}
"""What limits will have."""

LATER: dict[str, Later] = {
    "hub": Later(HubUrl, "write memory://", Hub),
    "usage": Later(Usage),
    "flags": Later(dict[Name, Flag]),
    "directory": Later(Directory),
    "cache_key": Later(str),
    "meters.*.count": Later(
        Literal["bytes_in", "bytes_out", "cost", "response_header", "response_trailer"], "leave the meter out"
    ),
    "meters.*.header": Later(str),
    "meters.*.pass": Later(Switch),
    **{f"tiers.*.{field}": later for field, later in PLAN.items()},
    **{f"tiers.*.limits.*.{field}": later for field, later in LIMIT.items()},
    **{f"customers.*.{field}": later for field, later in PLAN.items()},
    **{f"customers.*.limits.*.{field}": later for field, later in LIMIT.items()},
    "customers.*.paused": Later(Paused),
    "customers.*.regions": Later(Regions),
    "routes.*.cost": Later(Count),
    "routes.*.limits": Later(tuple[AnyLimit, ...]),
    "routes.*.flag": Later(Name),
}


def uses(tree: Table) -> Iterator[tuple[Steps, Value, Later]]:
    """The places of `tree` at which a row of the table has something to say."""
    for pattern, later in LATER.items():
        for path, value in _matches(tree, (), tuple(pattern.split("."))):
            yield path, value, later


def fields(path: Steps) -> set[str]:
    """The names that will be known in the mapping at `path`."""
    depth = len(path)
    rows = (pattern.split(".") for pattern in LATER)
    return {
        row[-1]
        for row in rows
        if len(row) == depth + 1 and all(a in ("*", str(b)) for a, b in zip(row, path, strict=False))
    } - {"*"}


def _matches(node: Value, path: Steps, pattern: tuple[str, ...]) -> Iterator[tuple[Steps, Value]]:
    """The values below `node` that the pattern leads to."""
    if not pattern:
        yield path, node
        return
    step, rest = pattern[0], pattern[1:]
    if step == "*":
        members = node.items() if isinstance(node, Table) else enumerate(node) if isinstance(node, Items) else ()
        for key, value in members:
            yield from _matches(value, (*path, key), rest)
    elif isinstance(node, Table) and step in node:
        yield from _matches(node[step], (*path, step), rest)
