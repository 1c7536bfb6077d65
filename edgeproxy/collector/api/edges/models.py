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
        "from": Annotated[str, Field(description="The beginning of the time that the batch counts.")],
        "to": Annotated[str, Field(description="The end of the time that the batch counts.")],
        "received": Annotated[str, Field(description="The time at which the batch came.")],
    },
)


class EdgeGap(TypedDict):
    """Batches of an edge that are missing for good."""

    from_seq: int
    """The number of the first batch that is missing."""
    to_seq: int
    """The number of the last batch that is missing."""
    why: str | None
    """The reason that the edge gave; null where it gave none."""


class EdgeQuarantinedBatch(TypedDict):
    """A batch of an edge that could not be read."""

    seq: int
    """The number of the batch."""
    why: str
    """The reason why it could not be read."""


class Edge(TypedDict):
    """An edge, as the collector knows it."""

    edge: str
    """The id of the edge."""
    region: str | None
    """The region of the edge; null where no batch has named it."""
    token: str | None
    """The token that the edge is bound to, by name; null where it is bound to none."""
    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""
    last: EdgeLastBatch | None
    """The last batch; null where none has come yet."""
    lag_s: int | None
    """The seconds from the end of the last batch until now; null where none has come yet."""
    retired: bool
    """Whether the edge is retired, so that it raises no alert."""
    version: str | None
    """The version of edgeproxy that the edge runs; null where it has not reported one."""
    sync_age_s: int | None
    """The seconds for which the edge had not agreed with the hub on limits, as it last reported; null without a hub."""
    gaps: list[EdgeGap]
    """The batches that are missing, latest first."""
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
    """Retire an edge or take it back; bind it to another token and region; or consent to a gap at its beginning."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": form} for form in FORMS_OF_CHANGE]},
    )

    retired: Boolean | None = None
    """True retires the edge, which then raises no alert; false takes it back."""
    token: Name | None = None
    """The token that the edge is bound to, by name; together with `region`."""
    region: Name | None = None
    """The region that the edge is bound to; together with `token`."""
    gap_to: GapTo | None = None
    """The number of the batch up to which the edge's first batches may be missing."""

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
    """The watermark of an edge, and the fields that were sent."""

    edge: str
    """The id of the edge."""
    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""
    retired: NotRequired[bool]
    """Whether the edge is retired, where that was changed."""
    token: NotRequired[str]
    """The token that the edge is bound to, by name, where that was changed."""
    region: NotRequired[str]
    """The region that the edge is bound to, where that was changed."""
    gap_to: NotRequired[int]
    """The number of the batch up to which batches may be missing, where that was changed."""


class BatchReceipt(TypedDict):
    """The answer to a batch that is settled."""

    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""
