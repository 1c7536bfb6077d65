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
    """Whether the end of the move may end its plan, within its period."""


class MovesQuery(Query):
    """The page."""

    limit: PageLimit = 100
    """The number of moves, at most."""


class BeginMoveRequest(Body):
    """Where a customer moves."""

    to: ResidencyName
    """The other residency."""
    end_plan: Boolean = False
    """Whether the end of the move may end its plan, within its period; nothing of its fee is paid back."""


class MoveStepRequest(Body):
    """The next step of a move."""

    step: Step
    """`created`: the customer is there, without keys. `promise` what credits are left. `go`: edges go over. `book` what
    was promised. `leave`: the deletion here begins. `withdraw` the move, as long as nothing has gone over."""
    peer: Id | None = None
    """The id of the customer at the other residency, for `created`."""


class MoveDocument(TypedDict):
    """What goes with a customer."""

    document: dict[str, object]
    """What `PUT /v1/arrivals/{move}` of the other residency takes. It has personal data, and hashes of keys."""


class ArrivalRequest(Body):
    """A customer from another residency."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    residency: ResidencyName = Field(alias="from")
    """The residency that it leaves."""
    document: dict[str, object]
    """What `GET /v1/customers/{customer}/move/document` answers there, or without some of the keys."""
    is_last: Boolean
    """Whether all keys have been sent: the customer has arrived then, and is changed here alone."""


class ArrivingGrant(Body):
    """Credits that came at once."""

    millicredits: Millicredits
    """The amount."""
    expires: Millicredits | None
    """The Unix millisecond at which what is left is void; null: never."""


class ArrivingTransfer(Body):
    """Credits, or an overdraft, from another residency."""

    number: Annotated[int, exact(int, "a whole number", 1, NUMBER_MAX), Field(ge=1, le=NUMBER_MAX)]
    """The number of the transfer within its move."""
    currency: Currency
    """The currency of the credits."""
    grants: Annotated[tuple[ArrivingGrant, ...], Field(max_length=GRANTS_MAX)]
    """The credits; an empty list where an overdraft goes over."""
    overdraft: Millicredits
    """The millicredits that the customer owes; 0 where credits go over."""
