"""Traffic as edges report it and as the API shows it."""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonValue
from edgeproxy.collector.accounts.fields import parse_span
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import A_MOMENT, Truth, in_query
from edgeproxy.collector.traffic.queries import GROUPS
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole, value_error
from edgeproxy.wire.batch import ROUTE_CHARACTERS_MAX, UNIX_SECONDS_MAX
from edgeproxy.wire.limit_usage import COUNT_MAX as LIMIT_COUNT_MAX
from edgeproxy.wire.limit_usage import LIMITS_MAX, WATCHED_MAX, LimitUsage
from edgeproxy.wire.traffic_report import (
    BUCKETS,
    COUNT_MAX,
    ERRORS_MAX,
    ROUTES_MAX,
    ErrorGroup,
    TrafficCounts,
    TrafficReport,
)

ROUTE_PATTERN = rf"^[!-~]{{1,{ROUTE_CHARACTERS_MAX}}}$"
Count = Annotated[int, Field(strict=True, ge=0, le=COUNT_MAX)]


class TrafficCountsBody(BaseModel):
    """The requests of a minute. Fields that are not known here are left out, as edges may be of a later version."""

    requests: Count
    """All requests."""
    rate_limited: Count
    """The requests that were answered with 429."""
    client_errors: Count
    """The requests that were answered with 4xx, other than 429."""
    server_errors: Count
    """The requests that were answered with 5xx."""
    buckets: Annotated[tuple[Count, ...], Field(min_length=BUCKETS, max_length=BUCKETS)]
    """The requests by how long they took: each bucket's own number."""

    def to_counts(self) -> TrafficCounts:
        """Return the numbers as counts."""
        return TrafficCounts(
            self.requests, self.rate_limited, self.client_errors, self.server_errors, tuple(self.buckets)
        )


class TrafficRouteBody(TrafficCountsBody):
    """The requests of a route in a minute."""

    route: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The route; `-` for requests that no route took."""


class CustomerErrorsBody(BaseModel):
    """The errors of a customer on a route in a minute: answers of 5xx, and of 4xx by the edge itself, without 429."""

    customer: Name
    """The customer, by name."""
    route: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The route; `-` for requests that no route took."""
    status: Annotated[int, Field(strict=True, ge=400, le=999)]
    """The status of the answers."""
    by: Literal["edge", "upstream"]
    """Who answered: the edge by itself, or the upstream."""
    requests: Count
    """The number of requests that were answered so."""


class TrafficReportBody(BaseModel):
    """What an edge answered in one minute."""

    minute: Annotated[int, Field(strict=True, ge=0, le=UNIX_SECONDS_MAX, multiple_of=60)]
    """The Unix second at which the minute begins."""
    region: Name
    """The region of the edge."""
    total: TrafficCountsBody
    """The requests of all routes."""
    routes: Annotated[list[TrafficRouteBody], Field(max_length=ROUTES_MAX)]
    """The requests by route, of those with most."""
    errors: Annotated[list[CustomerErrorsBody], Field(max_length=ERRORS_MAX)] = []
    """The errors of customers, of the groups with most; edges of earlier versions say none."""
    unnamed: Count = 0
    """The number of errors of customers in further groups."""

    def to_report(self) -> TrafficReport:
        """Return the body as a report."""
        routes = {one.route: one.to_counts() for one in self.routes}
        errors = {ErrorGroup(one.customer, one.route, one.status, one.by): one.requests for one in self.errors}
        return TrafficReport(self.minute, self.region, self.total.to_counts(), routes, errors, self.unnamed)


class LimitUsageRow(BaseModel):
    """What is used of a limit at an edge."""

    limit: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The name of the limit."""
    scope: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The requests that share the limit: those of the customer, of a key or a route."""
    route: Annotated[str, Field(pattern=f"^$|{ROUTE_PATTERN}")] = ""
    """The route of a limit that counts each route by itself; empty for any other."""
    mode: Literal["enforce", "shadow"]
    """`enforce` refuses what is above the limit, `shadow` counts it alone."""
    count: Annotated[int, Field(strict=True, ge=0, le=LIMIT_COUNT_MAX)]
    """The number that is allowed."""
    window_s: Annotated[float, Field(ge=0, le=LIMIT_COUNT_MAX, allow_inf_nan=False)]
    """The length of the window in seconds; 0 for requests at once."""
    used: Annotated[int, Field(strict=True, ge=0, le=LIMIT_COUNT_MAX)]
    """The number that is used now; of a limit by key, by the key that used most."""
    peak: Annotated[int, Field(strict=True, ge=0, le=LIMIT_COUNT_MAX)]
    """The largest number that was used since the customer is watched."""


class CustomerLimitUsageBody(BaseModel):
    """What a customer uses of its limits at an edge."""

    customer: Name
    """The customer, by name."""
    limits: Annotated[list[LimitUsageRow], Field(max_length=LIMITS_MAX)]
    """The limits of which the largest part is used."""


class LimitUsageBody(BaseModel):
    """What watched customers use of their limits at an edge now."""

    region: Name
    """The region of the edge."""
    usage: Annotated[list[CustomerLimitUsageBody], Field(max_length=WATCHED_MAX)] = []
    """The customers whom the answer before named, as far as the edge knows them."""

    def to_usage(self) -> dict[str, list[LimitUsage]]:
        """Return the used limits by customer."""
        return {one.customer: [LimitUsage(**limit.model_dump()) for limit in one.limits] for one in self.usage}


class LimitUsageReceipt(TypedDict):
    """The answer to a report of limits in use."""

    watched: list[str]
    """The customers to report next, by the names that edges know, at most 20."""


class TrafficReceipt(TypedDict):
    """The answer to a report."""

    recorded: bool
    """Whether it is new; false where this minute of the edge was there already."""


def read_groups(value: object) -> tuple[str, ...]:
    """Read the fields to group by."""
    names = tuple(name for name in str(value).split(",") if name)
    if not set(names) <= set(GROUPS) or len(set(names)) != len(names):
        raise value_error("cannot be used", "region, edge and route, each once, separated by commas")
    return names


GROUPS_SCHEMA = {"type": "string", "pattern": f"^({'|'.join(GROUPS)})?$"}
STEP_SCHEMA = {"type": "string", "pattern": r"^[1-9][0-9]{0,2}(min|h)$", "examples": ["5min"]}


class TrafficQueryParameters(Query):
    """The time, its steps, and the groups."""

    since: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="from")
    """The beginning of the time, in UTC; by default an hour before `to`."""
    until: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    """The end of the time, in UTC; by default the last whole minute that edges have reported by now."""
    step: Annotated[int, BeforeValidator(parse_span), WithJsonSchema(STEP_SCHEMA)] | None = None
    """The length of a step, such as 5min or 1h, which divides a day; by default one that makes at most 60 steps."""
    by: Annotated[tuple[str, ...], BeforeValidator(read_groups), WithJsonSchema(GROUPS_SCHEMA)] = ()
    """The fields to group by, separated by commas: region, edge or route."""
    coverage: Truth = True
    """Whether `edges` tells how much of the time each edge has reported; without, it is empty."""


class TrafficTotals(TypedDict):
    """The requests of a time."""

    requests: int
    """All requests."""
    rate_limited: int
    """The requests that were answered with 429."""
    client_errors: int
    """The requests that were answered with 4xx, other than 429."""
    server_errors: int
    """The requests that were answered with 5xx."""
    p50_ms: float | None
    """The milliseconds within which half of them were answered; null where there were none."""
    p95_ms: float | None
    """The milliseconds within which 95 of 100 were answered; null where there were none."""


class TrafficGroup(TrafficTotals):
    """The requests of a group."""

    region: NotRequired[str]
    """The region, where the query groups by it."""
    edge: NotRequired[str]
    """The edge, where the query groups by it."""
    route: NotRequired[str]
    """The route of the edge, where the query groups by it; `-` for requests that no route took."""


class TrafficStep(TrafficGroup):
    """The requests of a group in a step of the time."""

    start: str
    """The beginning of the step."""


class TrafficEdge(TypedDict):
    """How much of the time an edge has reported."""

    edge: str
    """The id of the edge."""
    region: str | None
    """The region of the edge."""
    minutes: int
    """The minutes that the edge has reported."""
    missing: int | None
    """The minutes without a report since its first one; null where it has sent none, as an earlier version does."""


TrafficResponse = TypedDict(
    "TrafficResponse",
    {
        "as_of": Annotated[str, Field(description="The time of the answer.")],
        "from": Annotated[str, Field(description="The beginning of the time, on a whole step.")],
        "to": Annotated[str, Field(description="The end of the time, on a whole step.")],
        "step_s": Annotated[int, Field(description="The seconds of a step.")],
        "total": Annotated[TrafficTotals, Field(description="The requests of the whole time.")],
        "groups": Annotated[list[TrafficGroup], Field(description="The requests of the whole time by group.")],
        "rows": Annotated[
            list[TrafficStep], Field(description="The requests by step and group; empty ones are left out.")
        ],
        "edges": Annotated[list[TrafficEdge], Field(description="The edges, and how much of the time each reported.")],
    },
)

HOURS_MAX = 7 * 24
"""Most hours of a customer's errors in a report."""


class CustomerErrorsQuery(Query):
    """The number of hours of a customer's errors."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The number of hours until now of which errors are reported."""


class CustomerErrorGroup(TypedDict):
    """The errors of a customer with one status on a route in a region."""

    status: int
    """The status of the answers."""
    by: str
    """Who answered: `edge` or `upstream`."""
    route: str
    """The route of the edge; `-` for requests that no route took."""
    region: str
    """The region of the edge."""
    requests: int
    """The number of requests that were answered so."""
    recent: int
    """The number of those in the last five minutes."""
    first_at: str
    """The minute of the first of them in the time."""
    last_at: str
    """The minute of the last of them in the time."""


class UnnamedErrorCounts(TypedDict):
    """The errors whose customers edges did not say, as there were too many groups of them in a minute."""

    requests: int
    """The number of requests, of any customers."""
    minutes: int
    """The minutes in which there were any."""


class CustomerErrorsResponse(TypedDict):
    """The errors of a customer, as far as edges have reported them: minute by minute, seconds after its end."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of the answer."""
    since: str
    """The beginning of the time."""
    errors: list[CustomerErrorGroup]
    """The errors by status, who answered, route and region, those with most requests first, at most 50."""
    unnamed: UnnamedErrorCounts
    """Errors in the same time of which some may be of this customer too."""


_COUNTS: dict[str, JsonValue] = {
    "requests": 12,
    "rate_limited": 1,
    "client_errors": 0,
    "server_errors": 0,
    "buckets": [0] * 5 + [11, 1] + [0] * (BUCKETS - 7),
}
EXAMPLE: JsonValue = {
    "minute": 1803902400,
    "region": "eu",
    "total": _COUNTS,
    "routes": [{"route": "v1", **_COUNTS}],
    "errors": [{"customer": "acme", "route": "v1", "status": 503, "by": "upstream", "requests": 2}],
    "unnamed": 0,
}
LIMIT_USAGE_EXAMPLE: JsonValue = {
    "region": "eu",
    "usage": [
        {
            "customer": "acme",
            "limits": [
                {
                    "limit": "burst",
                    "scope": "customer",
                    "route": "",
                    "mode": "enforce",
                    "count": 100,
                    "window_s": 10,
                    "used": 12,
                    "peak": 40,
                }
            ],
        }
    ],
}
