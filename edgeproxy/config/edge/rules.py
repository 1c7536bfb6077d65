"""Rules about single requests: their conditions, and the actions for matching requests."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from edgeproxy.config import parsers, units
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.stamps import STAMP_FIELDS
from edgeproxy.config.part import Part

CONDITIONS = ("path", "methods", "field", "larger")

UNSEEN_FIELDS = frozenset(
    (
        *("connection", "upgrade", "te", "max-forwards", "keep-alive", "proxy-connection", "proxy", "trailer"),
        *("proxy-authorization", "proxy-authenticate", "traceparent", "x-request-id"),
        *("x-forwarded-for", "x-forwarded-proto"),
        *STAMP_FIELDS,
    )
)
"""Fields that are already removed from requests when rules are evaluated."""

Method = Annotated[str, BeforeValidator(readers.read_method)]


class RequestRule(Part):
    """A rule about single requests.

    ```yaml
    rules:
      - {name: scanners, field: User-Agent, contains: sqlmap}
      - {name: large-posts, methods: [POST, PUT], larger: 10MiB, action: log}
      - {name: log-ins, path: /login, methods: [POST], action: limit, rate: 10/min}
    ```

    A rule applies to requests that meet all of its conditions. Rules run in this order, before keys are looked up.
    Each application counts in `edge_rules_total`: see [what a WAF does
    better](access.md#rules-and-what-a-waf-does-better).
    """

    name: Annotated[str, BeforeValidator(parsers.read_name)] = Field(description="Name in logs and metrics.")
    path: Annotated[str, BeforeValidator(readers.read_path)] | None = Field(
        default=None,
        description="Condition: the path, in the form of a [route's path](#routes). A request that writes `%2F` or "
        "`//` for a `/` matches too.",
    )
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] | None = Field(
        default=None, description="Condition: the method is one of these."
    )
    field: Annotated[str, BeforeValidator(parsers.read_field_name)] | None = Field(
        default=None,
        description="Condition: the request has this field. Fields for keys are refused here; in `Cookie` and "
        "`Sec-WebSocket-Protocol`, everything except the key is compared.",
    )
    contains: Annotated[str, BeforeValidator(parsers.read_sentence)] | None = Field(
        default=None, description="Condition: `field` contains this text, in any case."
    )
    larger: Annotated[int, BeforeValidator(units.read_bytes)] | None = Field(
        default=None, description="Condition: the body is larger than this, or its length is unknown."
    )
    action: Literal["deny", "log", "limit"] = Field(
        default="deny",
        description="`deny`: 403. `log`: the request passes and is logged, at most once a second. `limit`: it passes "
        "within `rate`, else 429.",
    )
    rate: Annotated[units.Rate, BeforeValidator(units.read_rate), PlainSerializer(str)] | None = Field(
        default=None, description="Requests per address that pass with `limit`."
    )
