"""Usage and refusals as the API shows them."""

from typing import Annotated, NotRequired

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import A_MOMENT, in_query
from edgeproxy.collector.ledger.queries import FIELDS, FILTERS, FORMATS, ROWS_MAX
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.units import Whole
from edgeproxy.wire.batch import ROUTE_CHARACTERS_MAX

A_SUBJECT = {"type": "string", "pattern": f"^[ -~]{{1,{ROUTE_CHARACTERS_MAX}}}$"}

VALUE_FIELDS = ("route", "region", "model")
"""Fields for grouping the value of usage. A dimension is an example of others."""
A_FILTER = f"^({'|'.join(FILTERS)}):[ -~]{{1,{ROUTE_CHARACTERS_MAX}}}$"


class UsageSpanQuery(Query):
    """The requested usage. `collector/ledger/queries.py` reads it."""

    customer: Annotated[str, WithJsonSchema(A_SUBJECT)] | None = None
    """Only usage of this customer, by name. A customer's own token sees only its own usage."""
    meter: Annotated[str, WithJsonSchema(A_SUBJECT)] | None = None
    """Only usage of this meter."""
    since: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="from")
    """The start of the time, in UTC. By default the start of the month. If the customer's tier shows fewer days in the
    detail of the query, the default is the start of these days.
    """
    until: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    """The end of the time, in UTC. It is exclusive."""
    where: Annotated[str, WithJsonSchema({"type": "string", "pattern": A_FILTER})] | None = None
    """Only usage with this value of a field: a route, a region or a dimension of a meter, with the value after a colon,
    such as `model:m-large`. An empty value selects usage without the dimension. Not for meters that cannot be added up.
    If the dimension names people and the query names a customer, the value is a person's name or pseudonym.
    """


class UsageQuery(UsageSpanQuery):
    """The requested usage and its groups. `collector/ledger/queries.py` reads it."""

    by: Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(FIELDS)})?$"})] | None = None
    """The fields to group by, separated by commas: minute, hour, day, customer, meter, route, region or a dimension
    of a meter."""
    limit: Annotated[str, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": ROWS_MAX})] | None = None
    """The number of rows on the page, at most."""
    cursor: str | None = None
    """The `next` of the page before; by default the first page."""
    format: Annotated[str, WithJsonSchema({"enum": list(FORMATS)})] | None = None
    """The format of the answer; by default the Accept field decides."""


class UsageValueQuery(UsageSpanQuery):
    """The usage of one customer and one meter whose value is requested."""

    meter: Annotated[str, WithJsonSchema(A_SUBJECT)]
    """The meter."""
    by: Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(VALUE_FIELDS)})?$"})] | None = None
    """The field that splits the amount: route, region or a dimension of the meter. Each of its values has its own
    amount.
    """


class ValueGroup(TypedDict):
    """The cost of usage with one value of a field: its share, by units, of the amount of all usage."""

    value: str
    """The value; empty for usage without the field."""
    quantity: int
    """The units used."""
    amount: int
    """The cost, in the smallest unit of the currency, before tax."""


class UsageValue(TypedDict):
    """The cost of a meter's usage in a time, as on the invoices of its periods.

    Each part of the time is rated under the plan that applied then. Units are included in the fee as far as earlier
    usage of the same period left some over.
    """

    customer: str
    """The customer, by name."""
    meter: str
    """The meter."""
    quantity: int
    """The units used."""
    plan: str
    """The version of the plan that applied last."""
    currency: Currency
    """The currency of the amount."""
    amount: int | None
    """The cost of the units, in the smallest unit of the currency, before coupons, minimum fees and tax; null if no
    plan in the time has a price for the meter.
    """
    groups: NotRequired[list[ValueGroup]]
    """The amounts for each value of the field that the query groups by. They add up to `amount`. Missing if `amount` is
    null, or if the field has more values than fit into one answer.
    """


class UsageRow(TypedDict):
    """The usage of a group. It also has the dimensions of a meter that the query groups by."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    value: int
    """The units used, in the meter's own unit."""
    minute: NotRequired[str]
    """The minute in UTC, if the query groups by it."""
    hour: NotRequired[str]
    """The hour in UTC, if the query groups by it."""
    day: NotRequired[str]
    """The day in UTC, such as 2027-01-31, if the query groups by it."""
    customer: NotRequired[str]
    """The customer, by name, if the query groups by it."""
    meter: NotRequired[str]
    """The meter, if the query groups by it."""
    route: NotRequired[str]
    """The route of the edge, or the source of events, if the query groups by it."""
    region: NotRequired[str]
    """The region, if the query groups by it."""


class Usage(TypedDict):
    """The usage in total and by group."""

    total: int | None
    """The total of the units used, in the meter's own unit; null if the query covers several meters with different
    units.
    """
    totals: NotRequired[dict[str, int]]
    """The units used of each meter, if there are several."""
    rows: list[UsageRow]
    """The groups. Each has the fields that the query groups by, and its units."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""
    unknown: NotRequired[dict[str, list[str]]]
    """The names in rows that no file and no account knows, by field."""


HOURS_MAX = 31 * 24


class RefusalsQuery(Query):
    """The number of hours that the report covers."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The number of hours until now that the report covers."""


class LimitRefusals(TypedDict):
    """The requests that a limit refused, and the number of them that were refused while the edge did not know the
    counts of other edges.
    """

    limit: str
    """The name of the limit."""
    refused: int
    """The number of requests that the limit refused."""
    uncertain: int
    """The number of requests refused while the edge did not know the counts of other edges."""


class CustomerRefusals(LimitRefusals):
    """The requests of a customer that a limit refused."""

    customer: str
    """The customer, by name."""


class RefusalReportResponse(TypedDict):
    """A report of refused requests: the limits and customers with the most refusals."""

    as_of: str
    """The time when the figures were computed."""
    since: str
    """The beginning of the time that the report covers."""
    until: str
    """The end of the time that the report covers."""
    is_counted: bool
    """True if a meter counts refusals (`count: refusals`). Without such a meter there are no figures."""
    refused: int
    """The number of requests refused."""
    uncertain: int
    """The number of requests refused while the edge did not know the counts of other edges."""
    customers: list[CustomerRefusals]
    """The customers with the most refusals, by limit."""
    limits: list[LimitRefusals]
    """The limits with the most refusals."""


class CustomerLimitsQuery(Query):
    """The number of hours of refusals."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The report covers refusals in this number of hours until now."""


class RateUse(TypedDict):
    """A rate limit of a customer, and its requests as counted by edges."""

    limit: str
    """The name of the limit."""
    scope: str
    """The requests that share the limit: those of the customer, of a key, an address or a route."""
    mode: str
    """`enforce` refuses requests above the limit, `shadow` only counts them."""
    count: int
    """The number of requests in a window. A temporary raise is included."""
    window_s: float
    """The length of the window in seconds."""
    routes: list[str]
    """The routes that the rate applies to: names, or patterns such as `chat-*`; all if `scopes` is empty too."""
    scopes: list[str]
    """The scopes of further routes that the rate applies to."""
    used: int | None
    """The requests in the last window of whole minutes. Null if they are not known: for rates that do not count all
    requests of the customer, for windows that are not whole minutes or longer than a day, and without a meter of
    requests.
    """
    peak: int | None
    """The requests in the fullest window of the last day; null like `used`."""


class LiveLimit(TypedDict):
    """The current use of a limit at an edge."""

    limit: str
    """The name of the limit; `concurrency` limits concurrent requests."""
    scope: str
    """The requests that share the limit: those of the customer, of a key or a route."""
    route: str
    """The route, for a limit that counts each route separately; empty for any other limit."""
    mode: str
    """`enforce` refuses requests above the limit, `shadow` only counts them."""
    count: int
    """The allowed number."""
    window_s: float
    """The length of the window in seconds; 0 for concurrent requests."""
    used: int
    """The number in use now; for a limit by key, the number of the key that used most."""
    peak: int
    """The largest number that the edge has seen since the customer was first watched."""


class LiveEdge(TypedDict):
    """A customer's current use of its limits at an edge. Edges that share a limit all report its whole use."""

    edge: str
    """The edge, by id."""
    region: str
    """The region of the edge."""
    as_of: str
    """The time of the edge's report."""
    limits: list[LiveLimit]
    """The limits that are used most, relative to the allowed number, at most 50."""


class RefusedGroup(LimitRefusals):
    """The requests of a customer that a limit refused on a route in a region."""

    route: str
    """The route of the edge."""
    region: str
    """The region of the edge."""
    recent: int
    """The number of requests refused in the last five minutes."""
    first_at: str
    """The minute of the first refusal in the time."""
    last_at: str
    """The minute of the last refusal in the time."""


class CustomerLimits(TypedDict):
    """The limits of a customer, their use, and their refusals, as far as edges have shipped them."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of the report."""
    limits: list[RateUse]
    """The rates that apply, in the order of the tier."""
    concurrency: int | None
    """The number of concurrent requests allowed; null if any number is."""
    concurrency_routes: list[str]
    """The routes whose requests count for concurrency; all if `concurrency_scopes` is empty too."""
    concurrency_scopes: list[str]
    """The scopes of further routes whose requests count for concurrency."""
    live: list[LiveEdge]
    """The current use at each edge. Edges report it while clients ask for it, the first time within 20 seconds. The
    number of customers reported at a time is limited; customers that operators ask for come first. Edges of earlier
    versions report nothing.
    """
    is_counted: bool
    """True if a meter counts refusals (`count: refusals`). Without such a meter no refusals are listed."""
    refusals: list[RefusedGroup]
    """The refusals by limit, route and region; the groups with the most requests first."""
