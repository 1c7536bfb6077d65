"""Meters, which count usage for billing, with a row for each possible `count`."""

from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from edgeproxy.config import parsers, units
from edgeproxy.config.dimensions import VALUES_MAX
from edgeproxy.config.field_types import DimensionName, DimensionValue, FieldName, Switch
from edgeproxy.config.forms import written
from edgeproxy.config.part import Part
from edgeproxy.config.selection import HeldRoutes, HeldScopes

CountName = Literal[
    "requests",
    "bytes_in",
    "bytes_out",
    "grpc_messages",
    "grpc_messages_in",
    "grpc_messages_out",
    "cost",
    "response_header",
    "response_trailer",
    "events",
    "holdings",
    "refusals",
    "input_tokens",
    "cached_tokens",
    "uncached_tokens",
    "output_tokens",
    "total_tokens",
    "cache_write_tokens",
    "fresh_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "image_output_tokens",
    "response_json",
]
AggregateName = Literal["sum", "max", "last", "average", "unique"]
"""The aggregation of a meter's events."""
UnitName = Literal["requests", "tokens", "bytes", "seconds", "messages", "characters"]
"""A unit that pages can translate into each language."""
SCALE_MAX: Final = 10**12
SCALES: Final[dict[UnitName, tuple[int, ...]]] = {
    "bytes": (1, 10**3, 10**6, 10**9, 10**12),
    "seconds": (1, 60, 3600, 86400),
}
"""The scales of units that have larger units: kilobytes to terabytes, minutes to days."""
DEFAULT_UNITS: Final[dict[CountName, UnitName]] = {
    "requests": "requests",
    "refusals": "requests",
    "bytes_in": "bytes",
    "bytes_out": "bytes",
    "input_tokens": "tokens",
    "cached_tokens": "tokens",
    "uncached_tokens": "tokens",
    "output_tokens": "tokens",
    "total_tokens": "tokens",
    "cache_write_tokens": "tokens",
    "fresh_tokens": "tokens",
    "reasoning_tokens": "tokens",
    "audio_input_tokens": "tokens",
    "audio_output_tokens": "tokens",
    "image_input_tokens": "tokens",
    "image_output_tokens": "tokens",
}
"""The default unit of a meter, by its count."""


class Measure(NamedTuple):
    """A quantity that a meter may count."""

    per_request: Callable[[int], int] | None = None
    """The amount of a request on a route of this `cost`. None: it is known later (edge/proxy/metering/meters.py)."""
    bytes_in: bool = False
    """True if the bytes of request bodies count, and the bytes from clients in tunnels."""
    bytes_out: bool = False
    """True if the bytes of answers' bodies count, and the bytes from upstreams in tunnels."""
    messages_in: bool = False
    """True if the messages of requests in gRPC calls count."""
    messages_out: bool = False
    """True if the messages of answers in gRPC calls count."""
    in_head: bool = False
    """True if the number in the meter's field counts, which upstreams send in the headers of answers."""
    in_trailers: bool = False
    """True if the number in the meter's field counts, which upstreams send in the trailers of answers."""
    in_body: Callable[[int, int], int] | None = None
    """Not None if the number in the bodies of answers counts, on routes that name its format.

    Without such a number, this computes an estimate from the estimates of input and output.
    """
    is_of_refusals: bool = False
    """True if refused requests count, by REFUSAL_DIMENSIONS, instead of served ones."""
    is_of_services: bool = False
    """True if services report usage or holdings to the collector, so that the edge counts nothing."""

    @property
    def is_of_messages(self) -> bool:
        """True if gRPC messages count, in one direction or in both."""
        return self.messages_in or self.messages_out

    @property
    def is_reported(self) -> bool:
        """True if upstreams report the number in a field that the meter names."""
        return self.in_head or self.in_trailers


PARTS: Final[tuple[CountName, ...]] = (
    *("cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_input_tokens", "audio_output_tokens"),
    *("image_input_tokens", "image_output_tokens"),
)
"""Counts that are parts of other counts. Bytes give no estimate of them."""
MEASURES: Final[dict[CountName, Measure]] = {
    "requests": Measure(per_request=lambda cost: 1),
    "cost": Measure(per_request=lambda cost: cost),
    "bytes_in": Measure(bytes_in=True),
    "bytes_out": Measure(bytes_out=True),
    "grpc_messages": Measure(messages_in=True, messages_out=True),
    "grpc_messages_in": Measure(messages_in=True),
    "grpc_messages_out": Measure(messages_out=True),
    "response_header": Measure(in_head=True),
    "response_trailer": Measure(in_trailers=True),
    "input_tokens": Measure(in_body=lambda inward, outward: inward),
    **dict.fromkeys(PARTS, Measure(in_body=lambda inward, outward: 0)),
    "fresh_tokens": Measure(in_body=lambda inward, outward: inward),
    "uncached_tokens": Measure(in_body=lambda inward, outward: inward),
    "output_tokens": Measure(in_body=lambda inward, outward: outward),
    "total_tokens": Measure(in_body=lambda inward, outward: inward + outward),
    "response_json": Measure(in_body=lambda inward, outward: outward),
    "events": Measure(is_of_services=True),
    "holdings": Measure(is_of_services=True),
    "refusals": Measure(is_of_refusals=True),
}
BODY_DIMENSIONS: Final = ("model", "estimated", "service_tier", "prompt_size")
"""Dimensions of numbers in bodies.

These are the model and the service tier in the body, whether the number is an estimate (`yes` or `no`), and the size of
the prompt, one of PROMPT_SIZES.
"""
MODEL, ESTIMATED, SERVICE_TIER, PROMPT_SIZE = BODY_DIMENSIONS
PROMPT_SIZES: Final = ((32_000, "32k"), (128_000, "128k"), (200_000, "200k"), (256_000, "256k"), (272_000, "272k"))
"""Maximum tokens and value of each size of prompts, as providers' prices change there. Longer ones are `more`."""
KEY: Final = "key"
"""The dimension of the API key of a request, if no field has it."""
OVER_CAP: Final = "cost-over-cap"
"""The edges' own meter of the cost of answers beyond a customer's `caps.request`, in millicredits.

Nobody configures it. The collector reports it to people.
"""
LIMIT, CERTAIN = "limit", "certain"
REFUSAL_DIMENSIONS: Final = {LIMIT: 100, CERTAIN: 2}
"""Dimensions of refusals, and how many values each may have.

They are the limit that refused, and `yes` or `no` for whether the edge knew everything that counts.
"""


def compute_request_amount(count: CountName, cost: int) -> int:
    """Return the amount of a request on a route of this `cost`. 0: it is known later."""
    amount = MEASURES[count].per_request
    return 0 if amount is None else amount(cost)


@written(lambda inner: inner)
def add_refusal_dimensions(meter: object) -> object:
    """Give a meter of refusals its dimensions, which are not configured."""
    if isinstance(meter, Mapping) and meter.get("count") == "refusals":
        return {**meter, "dimensions": {name: {"values": most} for name, most in REFUSAL_DIMENSIONS.items()}}
    return meter


class Dimension(Part):
    """A dimension of a meter. A number alone is its `values`.

    ```yaml
    meters:
      requests: {count: requests, dimensions: {model: {header: X-Usage-Model, values: 50}}}
      runs:     {count: events, dimensions: {model: 50, agent: 200}}
    ```

    A dimension cannot have the name `customer`, `meter`, `route`, `region`, `edge`, `minute`, `hour`, `day`, `month` or
    `value`. A row of the usage table has 232 bytes for customer, meter, route and values; a longer one is counted
    without its dimensions.
    """

    values: Annotated[int, BeforeValidator(units.Whole(1, VALUES_MAX))] = Field(
        description="Values that a customer may have in a month, as counted by the collector. Further values count as "
        "`~other`, except values with their own price in a plan. Each worker of an edge accepts the same number "
        "in a day."
    )
    named: list[DimensionValue] = Field(
        default_factory=list,
        max_length=VALUES_MAX,
        description="Values that always have a place, also beyond `values`, such as values with a price. Edges do not "
        "know the plans, so list them here.",
    )
    header: FieldName | None = Field(
        default=None,
        description="Field in the head of the upstream's answer with the value: 1 to 64 visible ASCII characters, the "
        "first not `~`; anything else counts as `~other`. Required, with three exceptions: events contain the value; "
        "meters of numbers in bodies have only `model`, `estimated`, `service_tier` and `prompt_size`; and `key` is "
        "the [API key](usage.md#by-key) of the request.",
    )
    person: Switch = Field(
        default=False,
        description="States that the values name people. The collector stores a "
        "[pseudonym](privacy.md#people-in-dimensions) for each, so that a person can be erased. For events only: "
        "edges ship values unchanged.",
    )


SPLIT_ESTIMATES: Final = "write dimensions: {estimated: 2}, which pages and the alert estimates_high need"
"""The advice for a meter that mixes estimates with numbers in answers."""


def is_by_key(name: str, dimension: Dimension) -> bool:
    """Return whether a dimension of usage that edges count is the API key."""
    return name == KEY and dimension.header is None


class Meter(Part):
    """A meter: a named count for billing.

    ```yaml
    meters:
      requests: {count: requests}
      egress:   {count: bytes_out}
      credits:  {count: cost, when: success}
      tokens:   {count: response_header, header: X-Usage-Tokens}
      output:   {count: output_tokens, missing: text/4, dimensions: {model: 50, estimated: 2}}
      units:    {count: response_json, json: usage.units}
      compute:  {count: events, label: Build time, unit: seconds, scale: 3600}
    ```

    A meter counts for every customer and route, from the first request after it is configured. The name
    `cost-over-cap` is reserved: edges count in it the [part of a cost above `caps.request`](quotas.md#caps).

    - `requests`: 1, before the head of the answer is written to the client. A WebSocket is one request.
    - `cost`: the `cost` of the route, at the same moment as `requests`.
    - `bytes_in`: the content of the request's body, without chunk framing and heads. It counts once, even if the body
      is sent several times. Bytes before the answer's head count with the head; later bytes, and all bytes with
      `when: admitted`, count before they are sent on.
    - `bytes_out`: the content of the answer's body as it is passed on, compressed or not, before it is written. If the
      answer breaks off, the bytes until then count. HEAD, 204, 304 and 1xx have none.
    - `grpc_messages`: the messages of gRPC calls in both directions. A message counts once it is whole, before its last
      bytes are passed on. `grpc_messages_in` counts only callers' messages, `grpc_messages_out` only services'.
      [Which calls these are](grpc.md#messages).
    - `response_header`: the whole number in the field `header` of the answer's head, such as `X-Usage-Tokens: 321`.
    - `response_trailer`: the whole number in a trailer field. An answer that breaks off has none. Upstreams must send
      trailers without being asked; they do not get `TE`.
    - `input_tokens`, `cached_tokens`, `uncached_tokens`, `output_tokens`, `total_tokens`: numbers from the body of a
      model's answer, on routes with [`response_usage`](#routesresponse_usage): [which numbers these are](ai.md). They
      are counted with the last bytes of the answer, and only for a 2xx.
    - `cache_write_tokens`, `fresh_tokens` (neither read from a cache nor written to one), `reasoning_tokens`,
      `audio_input_tokens`, `audio_output_tokens`, `image_input_tokens`, `image_output_tokens`: parts of these numbers
      that can have their own prices. Of these only `fresh_tokens` is ever estimated.
    - `response_json`: the whole number at the path `json` of the answer's JSON, on the same routes. In a stream, the
      last event with such a number counts.
    - `events`: nothing at the edge; services report usage to the collector ([events](events.md)).
    - `holdings`: nothing at the edge; services tell the collector [what exists](quotas.md#what-exists).
    - `refusals`: 1 for each request that a limit, a quota or a bound of concurrency answers with 429. It has two
      dimensions: `limit` is the first limit that refused. `certain` is `no` if the edge did not know all counts,
      because the hub was away, late or out of date. Quotas cannot use such a meter. [The console](pages.md) shows the
      customers whose requests are refused.

    With `routes` or `scopes` only requests of these routes feed the meter. For `events` these are the routes whose
    requests make services report: [quotas](quotas.md#which-requests-a-quota-holds) of the meter refuse requests of
    these routes only.

    With dimensions, everything that an answer counts is counted under the values in its head. They are known only with
    the answer, so `when: admitted` allows only the dimension `key`. After a 101 the bytes of the tunnel count, with
    the heads of WebSocket frames and without close frames from the edge. 101 is an answer, but not a success.

    A reported number consists of digits, from 0 to 1000000000000. Without the field nothing is counted. Anything else,
    including the field twice, counts nothing and increases `edge_usage_unreadable_total`; the log has the value.
    """

    count: CountName = Field(description="Quantity to count; see above.")
    when: Literal["answered", "success", "admitted"] = Field(
        default="answered",
        description="Requests that count: answered below 500, successful (2xx and 3xx), or all that were let through. "
        "If an upstream did not answer (502, 503, 504), a request counts only with `admitted`.",
    )
    header: FieldName | None = Field(
        default=None,
        description="Field that contains the upstream's number. Required with `response_header` and "
        "`response_trailer`, and only with these. Fields of the connection or the framing, such as `Content-Length`, "
        "are refused.",
    )
    pass_: Switch = Field(
        default=False,
        alias="pass",
        description="Passes the fields with the upstream's numbers to the client, including the fields of dimensions. "
        "By default they are removed from heads and trailers.",
    )
    json_path: Annotated[str, BeforeValidator(parsers.read_json_path)] | None = Field(
        default=None,
        alias="json",
        description="Path of the number in the answer's JSON: the keys from the top, such as `usage.total_tokens`. "
        "Required with `response_json`, and only with it.",
    )
    missing: Annotated[str, BeforeValidator(parsers.read_estimate)] = Field(
        default="0",
        description="Count for an answer whose body should state the number but does not: nothing (`0`), or an "
        "estimate from its text, such as `text/4`: from the request for input, from the answer for output and "
        "`response_json`, from both for `total_tokens`. `bytes/250` uses all bytes of the answer instead of its text, "
        "including bytes around the text; the text alone bounds the estimate. "
        "[How it is estimated](ai.md#what-is-not-stated).",
    )
    aggregate: AggregateName = Field(
        default="sum",
        description="How [events](events.md#what-events-come-to) add up. All values except `sum` need `count: events` "
        "or, except `unique`, [`holdings`](billing.md#places).",
    )
    routes: HeldRoutes = ()
    scopes: HeldScopes = ()
    label: Annotated[str, BeforeValidator(parsers.read_label)] | None = Field(
        default=None,
        description="Name of the meter on pages, in the language of the customers. By default from its own name: "
        '`llm_tokens` is "LLM tokens". Files and the API keep the meter\'s name.',
    )
    unit: UnitName | None = Field(
        default=None,
        description="Unit of the meter after a number on pages, in the reader's language. By default requests, bytes "
        "or tokens if `count` implies it, and nothing for other meters.",
    )
    scale: Annotated[int, BeforeValidator(units.Whole(1, SCALE_MAX))] | None = Field(
        default=None,
        description="Number of units that pages write a price for, such as `1000`: $0.01 per 1,000 tokens. Packages "
        "keep their size. For bytes use 1000, 1000000, 1000000000 or 1000000000000, and for seconds 60, 3600 or "
        "86400: pages then write quantities in the same unit, in GB or in hours. By default a price is for a number "
        "of units that makes it readable, and bytes are in the unit that fits.",
    )
    dimensions: dict[DimensionName, Annotated[Dimension, BeforeValidator(parsers.read_dimension)]] = Field(
        default={},
        description="Dimensions that split usage in addition to customer and route, such as `model`; at most four.",
    )

    _split = model_validator(mode="before")(add_refusal_dimensions)

    @property
    def hides_estimates(self) -> bool:
        """True if it counts estimates that look like numbers in answers."""
        return self.missing != "0" and ESTIMATED not in self.dimensions
