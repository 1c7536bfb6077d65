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
    """The requests of a minute. Unknown fields are ignored, because edges may run a later version."""

    requests: Count
    """All requests."""
    rate_limited: Count
    """The requests answered with 429."""
    client_errors: Count
    """The requests answered with 4xx, other than 429."""
    server_errors: Count
    """The requests answered with 5xx."""
    buckets: Annotated[tuple[Count, ...], Field(min_length=BUCKETS, max_length=BUCKETS)]
    """The requests by duration. Each bucket has its own number, not a cumulative one."""

    def to_counts(self) -> TrafficCounts:
        """Return the numbers as counts."""
        return TrafficCounts(
            self.requests, self.rate_limited, self.client_errors, self.server_errors, tuple(self.buckets)
        )


class TrafficRouteBody(TrafficCountsBody):
    """The requests of a route in a minute."""

    route: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The route; `-` for requests that matched no route."""


class CustomerErrorsBody(BaseModel):
    """The errors of a customer on a route in a minute: answers with 5xx, and answers with 4xx by the edge itself,
    without 429.
    """

    customer: Name
    """The customer, by name."""
    route: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The route; `-` for requests that matched no route."""
    status: Annotated[int, Field(strict=True, ge=400, le=999)]
    """The status of the answers."""
    by: Literal["edge", "upstream"]
    """The origin of the answer: the edge itself, or the upstream."""
    requests: Count
    """The number of requests with this answer."""


class TrafficReportBody(BaseModel):
    """The answers of an edge in one minute."""

    minute: Annotated[int, Field(strict=True, ge=0, le=UNIX_SECONDS_MAX, multiple_of=60)]
    """The start of the minute, in Unix seconds."""
    region: Name
    """The region of the edge."""
    total: TrafficCountsBody
    """The requests of all routes."""
    routes: Annotated[list[TrafficRouteBody], Field(max_length=ROUTES_MAX)]
    """The requests by route, for the routes with the most."""
    errors: Annotated[list[CustomerErrorsBody], Field(max_length=ERRORS_MAX)] = []
    """The errors of customers, for the groups with the most. Edges of earlier versions report none."""
    unnamed: Count = 0
    """The number of errors of customers in all other groups."""

    def to_report(self) -> TrafficReport:
        """Return the body as a report."""
        routes = {route.route: route.to_counts() for route in self.routes}
        errors = {
            ErrorGroup(error.customer, error.route, error.status, error.by): error.requests for error in self.errors
        }
        return TrafficReport(self.minute, self.region, self.total.to_counts(), routes, errors, self.unnamed)


class LimitUsageRow(BaseModel):
    """The use of a limit at an edge."""

    limit: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The name of the limit."""
    scope: Annotated[str, Field(pattern=ROUTE_PATTERN)]
    """The requests that share the limit: those of the customer, of a key or a route."""
    route: Annotated[str, Field(pattern=f"^$|{ROUTE_PATTERN}")] = ""
    """The route, for a limit that counts each route separately; empty for any other limit."""
    mode: Literal["enforce", "shadow"]
    """`enforce` refuses requests above the limit, `shadow` only counts them."""
    count: Annotated[int, Field(strict=True, ge=0, le=LIMIT_COUNT_MAX)]
    """The allowed number."""
    window_s: Annotated[float, Field(ge=0, le=LIMIT_COUNT_MAX, allow_inf_nan=False)]
    """The length of the window in seconds; 0 for concurrent requests."""
    used: Annotated[int, Field(strict=True, ge=0, le=LIMIT_COUNT_MAX)]
    """The number in use now; for a limit by key, the number of the key that used most."""
    peak: Annotated[int, Field(strict=True, ge=0, le=LIMIT_COUNT_MAX)]
    """The largest number in use since the edge started to report this customer."""


class CustomerLimitUsageBody(BaseModel):
    """A customer's use of its limits at an edge."""

    customer: Name
    """The customer, by name."""
    limits: Annotated[list[LimitUsageRow], Field(max_length=LIMITS_MAX)]
    """The limits that are used most, relative to the allowed number."""


class LimitUsageBody(BaseModel):
    """The current use of limits at an edge by the watched customers."""

    region: Name
    """The region of the edge."""
    usage: Annotated[list[CustomerLimitUsageBody], Field(max_length=WATCHED_MAX)] = []
    """The customers that the previous answer named, if the edge knows them."""

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
    """True if the report is new, false if this minute of the edge was reported already."""


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
    """The start of the time, in UTC; by default an hour before `to`."""
    until: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    """The end of the time, in UTC; by default the last whole minute that edges have reported."""
    step: Annotated[int, BeforeValidator(parse_span), WithJsonSchema(STEP_SCHEMA)] | None = None
    """The length of a step, such as 5min or 1h. It must divide a day. By default a length that makes at most 60 steps.
    """
    by: Annotated[tuple[str, ...], BeforeValidator(read_groups), WithJsonSchema(GROUPS_SCHEMA)] = ()
    """The fields to group by, separated by commas: region, edge or route."""
    coverage: Truth = True
    """True lists in `edges` how much of the time each edge has reported. Otherwise `edges` is empty."""


class TrafficTotals(TypedDict):
    """The requests of a time."""

    requests: int
    """All requests."""
    rate_limited: int
    """The requests answered with 429."""
    client_errors: int
    """The requests answered with 4xx, other than 429."""
    server_errors: int
    """The requests answered with 5xx."""
    p50_ms: float | None
    """The median latency in milliseconds; null without requests."""
    p95_ms: float | None
    """The 95th percentile of the latency in milliseconds; null without requests."""


class TrafficGroup(TrafficTotals):
    """The requests of a group."""

    region: NotRequired[str]
    """The region, if the query groups by it."""
    edge: NotRequired[str]
    """The edge, if the query groups by it."""
    route: NotRequired[str]
    """The route of the edge, if the query groups by it; `-` for requests that matched no route."""


class TrafficStep(TrafficGroup):
    """The requests of a group in one step."""

    start: str
    """The beginning of the step."""


class TrafficEdge(TypedDict):
    """The part of the time that an edge has reported."""

    edge: str
    """The id of the edge."""
    region: str | None
    """The region of the edge."""
    minutes: int
    """The number of minutes that the edge has reported."""
    missing: int | None
    """The number of minutes without a report since the first one; null if the edge has sent none, as an earlier version
    does.
    """


TrafficResponse = TypedDict(
    "TrafficResponse",
    {
        "as_of": Annotated[str, Field(description="The time of the answer.")],
        "from": Annotated[str, Field(description="The start of the time, on a whole step.")],
        "to": Annotated[str, Field(description="The end of the time, on a whole step.")],
        "step_s": Annotated[int, Field(description="The seconds of a step.")],
        "total": Annotated[TrafficTotals, Field(description="The requests of the whole time.")],
        "groups": Annotated[list[TrafficGroup], Field(description="The requests of the whole time by group.")],
        "rows": Annotated[
            list[TrafficStep], Field(description="The requests by step and group. Empty groups are left out.")
        ],
        "edges": Annotated[
            list[TrafficEdge], Field(description="The edges, and the part of the time that each of them reported.")
        ],
    },
)

HOURS_MAX = 7 * 24
"""Most hours of a customer's errors in a report."""


class CustomerErrorsQuery(Query):
    """The number of hours of a customer's errors."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The report covers this number of hours until now."""


class CustomerErrorGroup(TypedDict):
    """The errors of a customer with one status on a route in a region."""

    status: int
    """The status of the answers."""
    by: str
    """The origin of the answer: `edge` or `upstream`."""
    route: str
    """The route of the edge; `-` for requests that matched no route."""
    region: str
    """The region of the edge."""
    requests: int
    """The number of requests with this answer."""
    recent: int
    """The number of these errors in the last five minutes."""
    first_at: str
    """The minute of the first of these errors in the time."""
    last_at: str
    """The minute of the last of these errors in the time."""


class UnnamedErrorCounts(TypedDict):
    """The errors that edges reported without the customer, because a minute had too many groups."""

    requests: int
    """The number of requests, of any customers."""
    minutes: int
    """The number of minutes with such errors."""


class CustomerErrorsResponse(TypedDict):
    """The errors of a customer, as edges have reported them. Each minute is reported seconds after its end."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of the answer."""
    since: str
    """The beginning of the time."""
    errors: list[CustomerErrorGroup]
    """The errors by status, origin of the answer, route and region; the groups with the most requests first, at most
    50.
    """
    unnamed: UnnamedErrorCounts
    """Errors of unnamed customers in the same time. Some may be errors of this customer."""


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
