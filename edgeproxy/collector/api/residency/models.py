"""Requests and answers about moves of customers between residencies."""

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Boolean, PageLimit, Truth, exact
from edgeproxy.collector.residency.departure import Step
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.field_types import ResidencyName

MILLICREDITS_MAX = (1 << 53) - 1
NUMBER_MAX = 1_000_000
GRANTS_MAX = 1000
Millicredits = Annotated[int, exact(int, "a whole number", 0, MILLICREDITS_MAX), Field(ge=0, le=MILLICREDITS_MAX)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]


class DepartureQuery(Query):
    """The residency that the customer would move to."""

    residency: ResidencyName
    """The other residency."""
    end_plan: Truth = False
    """True if the move may end the customer's plan within its paid period when it completes."""


class MovesQuery(Query):
    """The page."""

    limit: PageLimit = 100
    """The number of moves, at most."""


class BeginMoveRequest(Body):
    """The destination of a customer's move."""

    to: ResidencyName
    """The other residency."""
    end_plan: Boolean = False
    """True if the move may end the customer's plan within its paid period when it completes. No part of the fee is paid
    back.
    """


class MoveStepRequest(Body):
    """The next step of a move."""

    step: Step
    """`created`: the customer exists there, without keys. `promise` the remaining credits. `go`: edges switch over.
    `book` the promised credits. `leave`: the deletion here starts. `withdraw` the move, while nothing has switched
    over.
    """
    peer: Id | None = None
    """The id of the customer at the other residency, for the step `created`."""


class MoveDocument(TypedDict):
    """The data that moves with a customer."""

    document: dict[str, object]
    """The body for `PUT /v1/arrivals/{move}` at the other residency. It contains personal data, and hashes of keys."""


class ArrivalRequest(Body):
    """A customer from another residency."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    residency: ResidencyName = Field(alias="from")
    """The residency that the customer leaves."""
    document: dict[str, object]
    """The answer of `GET /v1/customers/{customer}/move/document` there, possibly without some of the keys."""
    is_last: Boolean
    """True if all keys have been sent. The arrival is then complete, and from then on the customer is changed here
    only.
    """


class ArrivingGrant(Body):
    """Credits that were added at once."""

    millicredits: Millicredits
    """The amount."""
    expires: Millicredits | None
    """The time in Unix milliseconds when the unspent rest expires; null: never."""


class ArrivingTransfer(Body):
    """Credits, or an overdraft, from another residency."""

    number: Annotated[int, exact(int, "a whole number", 1, NUMBER_MAX), Field(ge=1, le=NUMBER_MAX)]
    """The number of the transfer within its move."""
    currency: Currency
    """The currency of the credits."""
    grants: Annotated[tuple[ArrivingGrant, ...], Field(max_length=GRANTS_MAX)]
    """The credits; an empty list for an overdraft."""
    overdraft: Millicredits
    """The millicredits that the customer owes; 0 for credits."""
