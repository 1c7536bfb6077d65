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
    """Only usage of this customer, by name. A customer's own token sees its own alone."""
    meter: Annotated[str, WithJsonSchema(A_SUBJECT)] | None = None
    """Only usage of this meter."""
    since: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="from")
    """The beginning of the time, in UTC; by default that of the month, or of the days of it that the customer's tier
    shows in the detail that the query groups by."""
    until: Annotated[str, WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    """The end of the time, in UTC; usage at this moment is not counted."""
    where: Annotated[str, WithJsonSchema({"type": "string", "pattern": A_FILTER})] | None = None
    """Only usage with this value of a field: route, region or a dimension of a meter, and the value after a colon, such
    as `model:m-large`. Without a value it is usage without the dimension. Not for meters that are not added up.
    Where the dimension names people, and a customer is given, the value is a person's name or pseudonym."""


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
    """The field of whose values each has an amount of its own: route, region or a dimension of the meter."""


class ValueGroup(TypedDict):
    """What usage with a value of a field costs: its share by units of the amount of all usage."""

    value: str
    """The value; empty for usage without the field."""
    quantity: int
    """The units used."""
    amount: int
    """What they cost, in smallest units of the currency and before tax."""


class UsageValue(TypedDict):
    """What usage of a meter in a time costs, as the invoices of its periods have it.

    Each part of the time is rated by the plan that was in force then, above what earlier usage of the same period has
    left of the included amount."""

    customer: str
    """The customer, by name."""
    meter: str
    """The meter."""
    quantity: int
    """The units used."""
    plan: str
    """The version of the plan that was in force last."""
    currency: Currency
    """The currency of the amount."""
    amount: int | None
    """What the units cost, in smallest units of the currency, before coupons, minimum fees and tax; null where no plan
    of the time has a price for the meter."""
    groups: NotRequired[list[ValueGroup]]
    """The same by the values of the field that the query groups by: their amounts add up to `amount`. Not there where
    the amount is null, or the field has more values than one answer."""


class UsageRow(TypedDict):
    """The usage of a group. Beside these fields it has the dimensions of a meter that the query groups by."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    value: int
    """The units used, in the meter's own unit."""
    minute: NotRequired[str]
    """The minute in UTC, where the query groups by it."""
    hour: NotRequired[str]
    """The hour in UTC, where the query groups by it."""
    day: NotRequired[str]
    """The day in UTC, such as 2027-01-31, where the query groups by it."""
    customer: NotRequired[str]
    """The customer, by name, where the query groups by it."""
    meter: NotRequired[str]
    """The meter, where the query groups by it."""
    route: NotRequired[str]
    """The route of the edge, or the source of events, where the query groups by it."""
    region: NotRequired[str]
    """The region, where the query groups by it."""


class Usage(TypedDict):
    """The usage in total and by group."""

    total: int | None
    """The units used in all, in the meter's own unit; null where several meters with different units are added."""
    totals: NotRequired[dict[str, int]]
    """The units used of each meter, where there are several."""
    rows: list[UsageRow]
    """The groups: each has the fields that the query groups by, and its units."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""
    unknown: NotRequired[dict[str, list[str]]]
    """The names in rows that no file and no account has, by field."""


HOURS_MAX = 31 * 24


class RefusalsQuery(Query):
    """The number of hours that the report covers."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The number of hours until now that the report covers."""


class LimitRefusals(TypedDict):
    """The requests that a limit refused, and how many of them while the edge did not know the counts of other edges."""

    limit: str
    """The name of the limit."""
    refused: int
    """The number of requests that the limit refused."""
    uncertain: int
    """The number of them refused while the edge did not know the counts of other edges."""


class CustomerRefusals(LimitRefusals):
    """The requests of a customer that a limit refused."""

    customer: str
    """The customer, by name."""


class RefusalReportResponse(TypedDict):
    """A report of refused requests: the limits and customers with the most refusals."""

    as_of: str
    """The time at which the figures were computed."""
    since: str
    """The beginning of the time that the report covers."""
    until: str
    """The end of the time that the report covers."""
    is_counted: bool
    """Whether a meter counts refusals (`count: refusals`); without one there are no figures."""
    refused: int
    """The number of requests refused."""
    uncertain: int
    """The number of them refused while the edge did not know the counts of other edges."""
    customers: list[CustomerRefusals]
    """The customers with most refusals, by limit."""
    limits: list[LimitRefusals]
    """The limits with most refusals."""


class CustomerLimitsQuery(Query):
    """The number of hours of refusals."""

    hours: Annotated[int, BeforeValidator(Whole(1, HOURS_MAX)), in_query(1, HOURS_MAX)] = 24
    """The number of hours until now of which refusals are reported."""


class RateUse(TypedDict):
    """A rate of a customer, and the requests that edges have counted of it."""

    limit: str
    """The name of the limit."""
    scope: str
    """The requests that share the limit: those of the customer, of a key, an address or a route."""
    mode: str
    """`enforce` refuses what is above the limit, `shadow` counts it alone."""
    count: int
    """The number of requests in a window, raised for a while as it may be."""
    window_s: float
    """The length of the window in seconds."""
    routes: list[str]
    """The routes whose requests the rate holds: names, or patterns such as `chat-*`; all if `scopes` is empty, too."""
    scopes: list[str]
    """The scopes by which the rate holds the requests of routes."""
    used: int | None
    """The requests in the last window of whole minutes; null where they are not known: for rates that do not count all
    requests of the customer, whose window is no whole minutes or above a day, or without a meter of requests."""
    peak: int | None
    """The requests of the fullest window of the last day; null like `used`."""


class LiveLimit(TypedDict):
    """What is used of a limit at an edge now."""

    limit: str
    """The name of the limit; `concurrency` limits requests at once."""
    scope: str
    """The requests that share the limit: those of the customer, of a key or a route."""
    route: str
    """The route of a limit that counts each route by itself; empty for any other."""
    mode: str
    """`enforce` refuses what is above the limit, `shadow` counts it alone."""
    count: int
    """The number that is allowed."""
    window_s: float
    """The length of the window in seconds; 0 for requests at once."""
    used: int
    """The number that is used now; of a limit by key, by the key that used most."""
    peak: int
    """The largest number that the edge has seen since somebody looks."""


class LiveEdge(TypedDict):
    """What is used of a customer's limits at an edge now. Where edges share a limit, each says what all of them use."""

    edge: str
    """The edge, by id."""
    region: str
    """The region of the edge."""
    as_of: str
    """The time of its report."""
    limits: list[LiveLimit]
    """The limits of which the largest part is used, at most 50."""


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
    """The limits of a customer, what is used of them, and what they refused; as far as edges have shipped it."""

    customer: str
    """The customer, by name."""
    as_of: str
    """The time of the report."""
    limits: list[RateUse]
    """The rates that apply, in the order of the tier."""
    concurrency: int | None
    """The requests at once that are allowed; null where any number is."""
    concurrency_routes: list[str]
    """The routes whose requests count as requests at once; all where `concurrency_scopes` is empty, too."""
    concurrency_scopes: list[str]
    """The scopes by which the requests of routes count as requests at once."""
    live: list[LiveEdge]
    """What is used at each edge now. Edges report it while somebody asks, the first time within 20 seconds; of so many
    customers at a time, operators' first. Those of earlier versions report nothing."""
    is_counted: bool
    """Whether a meter counts refusals (`count: refusals`); without one there are none here."""
    refusals: list[RefusedGroup]
    """The refusals by limit, route and region, those with most requests first."""
