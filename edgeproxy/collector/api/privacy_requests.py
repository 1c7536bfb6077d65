"""Privacy requests of people."""

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.endpoint import CREATE, SUPPORT, Call, Nothing, Query, get, post
from edgeproxy.collector.api.field_types import ChangeQuery, Cursor, PageLimit, Truth
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.responses import next_page
from edgeproxy.collector.privacy import requests
from edgeproxy.collector.privacy.requests import (
    CreatePrivacyRequest,
    PrivacyRequest,
    PrivacyRequestList,
    PrivacyRequestStep,
)


class PrivacyRequestsQuery(Query):
    """Filters of requests, and the page."""

    limit: PageLimit = 100
    """The number of requests on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    open: Truth = False
    """True lists only requests that are not done, refused or withdrawn."""


class PrivacyRequestHandlers(ChangeHandlers):
    """Handlers of privacy requests."""

    @get("/v1/privacy/requests")
    async def list_requests(self, call: Call[PrivacyRequestsQuery, Nothing]) -> PrivacyRequestList:
        """List requests of people, oldest first."""
        query = call.query
        async with self._database.reading() as connection:
            rows = await requests.list_requests(connection, query.cursor, query.limit, only_open=query.open)
        return {"requests": rows, **next_page(rows.next)}

    @post(
        "/v1/privacy/requests",
        example={
            "kind": "erasure",
            "law": "gdpr",
            "person": "Ada, by mail",
            "note": "Wants all that we have of her to be deleted.",
        },
        status=201,
        change=CREATE,
    )
    async def create_request(
        self, call: Call[ChangeQuery, CreatePrivacyRequest], connection: AsyncConnection
    ) -> PrivacyRequest:
        """Record a request of a person. This changes nothing else."""
        return await requests.create_request(connection, call.caller, call.body)

    @post(
        "/v1/privacy/requests/{request}/steps",
        example={"state": "identified", "note": "Signed in as the contact of the account."},
        status=201,
        change=CREATE,
    )
    async def add_step(
        self, call: Call[ChangeQuery, PrivacyRequestStep], connection: AsyncConnection
    ) -> PrivacyRequest:
        """Add a step to a request. The states `done`, `refused` and `withdrawn` end it."""
        id_ = call.path("request")
        return await requests.add_step(connection, call.caller, id_, call.body)


GROUP = Group(
    "privacy-requests",
    "Requests of people about their data: the request, its deadline, and the steps taken.",
    PrivacyRequestHandlers,
    roles=SUPPORT,
    parameters={"request": PathParameter("The id of the request.")},
)
