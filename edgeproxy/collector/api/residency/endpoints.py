"""The table of endpoints: sums of residencies, and moves of customers between them."""

from edgeproxy.collector.api.endpoint import ADMIN, AGGREGATES, BILLING, UPDATE, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import CUSTOMER, Group, PathParameter
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.residency.handlers import ResidencyHandlers
from edgeproxy.collector.api.residency.models import (
    ArrivalRequest,
    ArrivingTransfer,
    BeginMoveRequest,
    DepartureQuery,
    MoveDocument,
    MovesQuery,
    MoveStepRequest,
)
from edgeproxy.collector.residency.aggregates import Aggregates
from edgeproxy.collector.residency.departure import Departure, MoveProgress
from edgeproxy.collector.residency.moves import Move, MoveList
from edgeproxy.collector.residency.peers import ResidencyList

GROUP = Group(
    "residency",
    "Sums of residencies, and moves of customers between them. `edgeproxy residency move` calls the endpoints of "
    "both residencies in order. Each call may be repeated.",
    ResidencyHandlers,
    (
        Endpoint(
            "GET",
            "/v1/residencies",
            ResidencyHandlers.list_residencies,
            "List this residency and those in the file, with the sums of each. The collector asks each one at "
            "most once a minute.",
            roles=BILLING,
            response=ResidencyList,
            errors={409: "This collector has no residency."},
        ),
        Endpoint(
            "GET",
            "/v1/residency/aggregates",
            ResidencyHandlers.fetch_aggregates,
            "Fetch sums of this residency for the console of another one. They identify no customer.",
            roles=AGGREGATES,
            response=Aggregates,
            errors={409: "This collector has no residency."},
            rate=RequestRate(30, "address"),
        ),
        Endpoint(
            "GET",
            "/v1/moves",
            ResidencyHandlers.list_moves,
            "List moves to and from other residencies, newest first.",
            roles=ADMIN,
            query=MovesQuery,
            response=MoveList,
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/move",
            ResidencyHandlers.preview_move,
            "Preview a move of a customer to another residency: the data that moves, the data that stays, and the "
            "obstacles.",
            roles=ADMIN,
            query=DepartureQuery,
            response=Departure,
            errors={409: "This collector has no residency."},
        ),
        Endpoint(
            "POST",
            "/v1/customers/{customer}/move",
            ResidencyHandlers.begin_move,
            "Start or resume a move of a customer to another residency. Nothing changes for the customer yet.",
            roles=ADMIN,
            query=ChangeQuery,
            body=BeginMoveRequest,
            response=MoveProgress,
            errors={409: "An obstacle keeps the customer from leaving."},
            is_sensitive=True,
            example={"to": "us"},
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/move/document",
            ResidencyHandlers.fetch_document,
            "Fetch the data that moves with a customer to another residency. The audit log records this.",
            roles=ADMIN,
            response=MoveDocument,
            errors={409: "This collector has no residency."},
            is_sensitive=True,
        ),
        Endpoint(
            "POST",
            "/v1/customers/{customer}/move/steps",
            ResidencyHandlers.take_step,
            "Take the next step of a move. Repeating a step changes nothing.",
            roles=ADMIN,
            query=ChangeQuery,
            body=MoveStepRequest,
            response=MoveProgress,
            errors={409: "There is no move, or another step comes first."},
            is_sensitive=True,
            example={"step": "go"},
        ),
        Endpoint(
            "PUT",
            "/v1/arrivals/{move}",
            ResidencyHandlers.put_arrival,
            "Accept a customer from another residency. A customer whose arrival is complete is not changed.",
            roles=ADMIN,
            query=ChangeQuery,
            body=ArrivalRequest,
            response=Move,
            change=UPDATE,
            is_sensitive=True,
            example={
                "from": "eu",
                "document": {"format": 1, "peer": "01a0", "name": "acme", "settings": {"tier": "standard"}},
                "is_last": False,
            },
        ),
        Endpoint(
            "DELETE",
            "/v1/arrivals/{move}",
            ResidencyHandlers.withdraw_arrival,
            "Withdraw an incomplete arrival. A customer that the arrival created is erased at once; an earlier "
            "customer, who came back, is being deleted again. If the customer has not arrived, its arrival is "
            "refused for a week.",
            roles=ADMIN,
            query=ChangeQuery,
            response=Move,
            errors={
                404: "There is no such arrival.",
                409: "The arrival is complete, or credits of the move are booked.",
            },
            is_sensitive=True,
        ),
        Endpoint(
            "POST",
            "/v1/arrivals/{move}/transfers",
            ResidencyHandlers.book_transfer,
            "Book credits, or an overdraft, that move with a customer from another residency. Each transfer is "
            "booked once.",
            roles=ADMIN,
            query=ChangeQuery,
            body=ArrivingTransfer,
            response=Move,
            errors={409: "Such credits cannot be spent here, or the customer is charged in another currency."},
            is_sensitive=True,
            example={
                "number": 1,
                "currency": "usd",
                "grants": [{"millicredits": 20_000, "expires": None}],
                "overdraft": 0,
            },
        ),
    ),
    parameters={"customer": CUSTOMER, "move": PathParameter("The id of the move.")},
)
