"""Edges and their batches as the API shows them."""

from typing import Annotated, NotRequired, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from edgeproxy.collector.api.field_types import Boolean, exact
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import value_error

GAP_SEQ_MAX = 100_000_000
"""The largest batch number that an initial gap may reach with consent: centuries of batches of an edge."""


EdgeLastBatch = TypedDict(
    "EdgeLastBatch",
    {
        "from": Annotated[str, Field(description="The start of the time that the batch covers.")],
        "to": Annotated[str, Field(description="The end of the time that the batch covers.")],
        "received": Annotated[str, Field(description="The time when the batch arrived.")],
    },
)


class EdgeGap(TypedDict):
    """Batches of an edge that are missing for good."""

    from_seq: int
    """The number of the first batch that is missing."""
    to_seq: int
    """The number of the last batch that is missing."""
    why: str | None
    """The reason that the edge gave; null if it gave none."""


class EdgeQuarantinedBatch(TypedDict):
    """A batch of an edge that could not be read."""

    seq: int
    """The number of the batch."""
    why: str
    """The reason why it could not be read."""


class Edge(TypedDict):
    """An edge, with the collector's knowledge of it."""

    edge: str
    """The id of the edge."""
    region: str | None
    """The region of the edge; null if no batch has named it."""
    token: str | None
    """The token that the edge is bound to, by name; null if it is bound to none."""
    watermark: int
    """The number of the last settled batch: all batches of the edge up to it are settled."""
    last: EdgeLastBatch | None
    """The last batch; null if none has arrived yet."""
    lag_s: int | None
    """The seconds from the end of the last batch until now; null if none has arrived yet."""
    retired: bool
    """True if the edge is retired. A retired edge raises no alert."""
    version: str | None
    """The version of edgeproxy on the edge; null if it has not reported one."""
    sync_age_s: int | None
    """The seconds since the edge last agreed with the hub on limits, as in its last report; null without a hub."""
    gaps: list[EdgeGap]
    """The missing batches, latest first."""
    quarantined: list[EdgeQuarantinedBatch]
    """The batches in quarantine, latest first."""


class EdgeList(TypedDict):
    """All edges."""

    edges: list[Edge]
    """The edges, by id."""


GapTo = Annotated[
    int,
    exact(int, f"a whole number from 0 to {GAP_SEQ_MAX}", 0, GAP_SEQ_MAX),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": GAP_SEQ_MAX}),
]
FORMS_OF_CHANGE: tuple[list[JsonValue], ...] = (["retired"], ["region", "token"], ["gap_to"])
"""The combinations of fields that make a change of an edge."""


class UpdateEdgeRequest(BaseModel):
    """Retire an edge or restore it; bind it to another token and region; or accept a gap at its start."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": form} for form in FORMS_OF_CHANGE]},
    )

    retired: Boolean | None = None
    """True retires the edge, so that it raises no alert. False restores it."""
    token: Name | None = None
    """The token that the edge is bound to, by name; together with `region`."""
    region: Name | None = None
    """The region that the edge is bound to; together with `token`."""
    gap_to: GapTo | None = None
    """The number of the last batch that may be missing at the start of the edge's chain."""

    @model_validator(mode="after")
    def is_of_one_form(self) -> Self:
        """Raise an error unless these fields make one change."""
        given = self.model_dump(exclude_none=True)
        if sorted(given) not in FORMS_OF_CHANGE or given.keys() != self.model_fields_set:
            raise value_error(
                "is no change", 'send {"retired": true}, {"token": NAME, "region": REGION} or {"gap_to": SEQ}'
            )
        return self


class EdgeUpdateResult(TypedDict):
    """The watermark of an edge, and the fields that the request sent."""

    edge: str
    """The id of the edge."""
    watermark: int
    """The number of the last settled batch: all batches of the edge up to it are settled."""
    retired: NotRequired[bool]
    """True if the edge is retired; missing if the request did not change this."""
    token: NotRequired[str]
    """The token that the edge is bound to, by name; missing if the request did not change it."""
    region: NotRequired[str]
    """The region that the edge is bound to; missing if the request did not change it."""
    gap_to: NotRequired[int]
    """The number of the last batch that may be missing; missing if the request did not change it."""


class BatchReceipt(TypedDict):
    """The answer to a settled batch."""

    watermark: int
    """The number of the last settled batch: all batches of the edge up to it are settled."""
