"""The fallback of a route: another upstream that is used if the first one fails."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config.edge.rewrites import Rewrite
from edgeproxy.config.edge.timeouts import Duration
from edgeproxy.config.field_types import Name
from edgeproxy.config.forms import build_any_of, build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import Size, Whole, format_value, read_text, value_error

A_STATUS = "a status such as 429, or 5xx for all of them"
CLASSES = {"4xx": tuple(range(400, 500)), "5xx": tuple(range(500, 600))}
read_error_status = Whole(400, 599)


@written(build_text("status code", "[45]([0-9][0-9]|xx)", "429", "5xx"), str)
def read_statuses(value: object) -> str:
    """Read an error's status or class of statuses."""
    text = str(value) if isinstance(value, int) else read_text(value, A_STATUS)
    if text not in CLASSES:
        try:
            return str(read_error_status(text))
        except ValueError:
            raise value_error(f"{format_value(text)} is not the status of an error", A_STATUS) from None
    return text


@written(lambda inner: build_any_of(build_text("name of an upstream", "[A-Za-z0-9._-]+"), inner))
def read_fallback(value: object) -> object:
    """Read the name of an upstream, or a mapping with the name."""
    return {"upstream": value} if isinstance(value, str) else value


class Fallback(Part):
    """A second upstream of a route. It gets the request if the first one fails. A name alone is its `upstream`.

    It gets requests with any method, also a POST that the first upstream may have started to process:
    [when that happens](upstreams.md#fallback).

    ```yaml
    upstreams:
      models: {endpoints: [https://models.example.com], host: upstream}
      spare: {endpoints: [https://spare.example.com/compatible], host: upstream}
    routes:
      - path: /v1/*
        upstream: models
        rewrite: {request: {set: {Authorization: "Bearer ${MODELS_KEY:-none}"}}}
        fallback:
          upstream: spare
          after: 60s
          rewrite: {request: {set: {Authorization: "Bearer ${SPARE_KEY:-none}"}}}
    ```
    """

    upstream: Name = Field(description="Upstream that gets the request then.")
    statuses: Annotated[tuple[Annotated[str, BeforeValidator(read_statuses)], ...], Field(min_length=1)] = Field(
        default=("429", "5xx"),
        description="Statuses of the first upstream that trigger the fallback. Its answer is discarded, and counts as "
        "an error of the endpoint (`eject`).",
    )
    after: Duration | None = Field(
        default=None,
        description="Time for the first upstream to send the head of its answer; for a model's stream the first token, "
        "else the whole answer. If the second upstream cannot be used, and by default, this time is the first "
        "upstream's `response_head`.",
    )
    buffer: Annotated[int, BeforeValidator(Size(1, 1 << 50))] = Field(
        default=10 << 20,
        description="Largest body that is held until the request is over, like the `buffer` of an upstream. A request "
        "with a longer body, or a body of unknown length, goes only to the first upstream, unless all of it arrives "
        "with its head.",
    )
    rewrite: Rewrite = Field(
        default=Rewrite(),
        description="Changes of the second upstream's requests. They replace the route's changes, which apply to the "
        "first upstream only, because they may contain its credentials. Answers of both are changed as the route says.",
    )

    def list_statuses(self) -> frozenset[int]:
        """Return the individual statuses."""
        return frozenset(status for each in self.statuses for status in CLASSES.get(each) or (int(each),))
