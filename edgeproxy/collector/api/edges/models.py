"""Edges and their batches as the API shows them."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, JsonValue, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from edgeproxy.collector.api.field_types import Boolean, exact
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import value_error

GAP_SEQ_MAX = 100_000_000
"""The batch up to which a chain may begin with a gap at most, with consent: centuries of batches of an edge."""


class EdgeList(TypedDict):
    """How each edge is."""

    edges: list[dict[str, Any]]
    """Each with `edge`, `region`, `token`, `watermark`, its `last` batch, `lag_s` and `sync_age_s` in seconds,
    `retired`, `version`, `gaps` and `quarantined`."""


GapTo = Annotated[
    int,
    exact(int, f"a whole number from 0 to {GAP_SEQ_MAX}", 0, GAP_SEQ_MAX),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": GAP_SEQ_MAX}),
]
FORMS_OF_CHANGE: tuple[list[JsonValue], ...] = (["retired"], ["region", "token"], ["gap_to"])
"""The fields that make a change of an edge."""


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
        """Raise unless these fields make one change."""
        given = self.model_dump(exclude_none=True)
        if sorted(given) not in FORMS_OF_CHANGE or given.keys() != self.model_fields_set:
            raise value_error(
                "is no change", 'send {"retired": true}, {"token": NAME, "region": REGION} or {"gap_to": SEQ}'
            )
        return self


class EdgeUpdated(TypedDict):
    """The watermark of an edge, and what was changed."""

    edge: str
    """The id of the edge."""
    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""


class Watermark(TypedDict):
    """The batch up to which all of the edge is settled."""

    watermark: int
    """The number of the batch up to which all of the edge's batches are settled."""
