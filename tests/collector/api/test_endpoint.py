"""Endpoints as their decorators and the types of their handlers state them."""

import pytest
from aiohttp import web
from typing_extensions import TypedDict

from edgeproxy.collector.api.auth import CUSTOMER
from edgeproxy.collector.api.endpoint import ADMIN, CREATE, UPDATE, Call, Endpoint, Nothing, Query, get, post, put
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, Handlers
from edgeproxy.collector.api.groups import GROUPS, PARAMETERS
from edgeproxy.collector.api.openapi import PATH_PARAMETER
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import Result, build_response, next_page

ENDPOINTS = [endpoint for group in GROUPS for endpoint in group.endpoints]
RARE, OFTEN = RequestRate(1, "address"), RequestRate(100, "customer")


class Thing(TypedDict):
    name: str


class ThingHandlers(Handlers):
    @get("/v1/things")
    async def list_things(self, call: Call[Query, Nothing]) -> Thing:
        """List things."""
        raise NotImplementedError

    def count(self) -> int:
        raise NotImplementedError

    @post("/v1/things", roles=ADMIN, rate=RARE, errors={404: "No thing."}, change=CREATE)
    async def create_thing(self, call: Call[ChangeQuery, Nothing], connection: object) -> Result[Thing] | web.Response:
        """Create a thing.

        It is
        new.
        """
        raise NotImplementedError

    @put("/v1/things")
    async def download_things(self, call: Call[Query, Nothing]) -> web.StreamResponse:
        """Download things."""
        raise NotImplementedError


GROUP = Group(
    "things",
    "Things.",
    ThingHandlers,
    roles=frozenset({"read"}),
    rate=OFTEN,
    errors={404: "Things are off.", 409: "The thing is locked."},
)


def test_handler_states_types_and_summary() -> None:
    listed, created, downloaded = GROUP.endpoints
    assert (listed.query, listed.body, listed.response) == (Query, Nothing, Thing)
    assert (created.query, created.response, created.summary) == (ChangeQuery, Thing, "Create a thing. It is new.")
    assert downloaded.response is None
    assert [endpoint.is_transaction for endpoint in GROUP.endpoints] == [False, True, False]


def test_endpoint_group_gives_defaults_and_changes_override_them() -> None:
    listed, created, _ = GROUP.endpoints
    assert (listed.roles, listed.rate, listed.all_errors[404]) == ({"read"}, OFTEN, "Things are off.")
    assert (created.roles, created.rate, created.all_errors[404]) == (ADMIN, RARE, "No thing.")
    assert (listed.all_errors[409], created.all_errors[409]) == ("The thing is locked.", CREATE.errors[409])


def test_answer_has_the_status_of_its_endpoint_unless_it_states_another() -> None:
    plain = build_response({"name": "a"}, 201)
    assert isinstance(plain, web.Response)
    assert (plain.status, plain.body, "ETag" in plain.headers) == (201, b'{"name":"a"}', False)
    versioned = build_response(Result({"name": "a"}, 3, 202, {"Vary": "Accept"}), 200)
    assert (versioned.status, versioned.headers["ETag"], versioned.headers["Vary"]) == (202, '"3"', "Accept")
    assert build_response(downloaded := web.Response(), 200) is downloaded
    assert (next_page(None), next_page(7)) == ({}, {"next": 7})


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)
def test_each_endpoint_is_complete(endpoint: Endpoint) -> None:
    assert endpoint.roles, "the endpoint has no role"
    assert endpoint.is_public == bool(endpoint.listener_groups)
    if endpoint.is_transaction:
        assert issubclass(endpoint.query, ChangeQuery), "a transaction may be a dry run"
    if endpoint.change is UPDATE:
        assert endpoint.method != "GET"
    if endpoint.hides is not None:
        assert endpoint.hides in endpoint.response.__annotations__, "the field of its answer"  # type: ignore[attr-defined]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation_id)
def test_customers_reach_their_own_data_only(endpoint: Endpoint) -> None:
    if CUSTOMER not in endpoint.roles:
        return
    owned = [PARAMETERS[name].find_owner is not None for name in PATH_PARAMETER.findall(endpoint.path)]
    is_named = any(owned) or "customer" in endpoint.query.model_fields
    assert is_named != (endpoint.own is not None), "the path, the query or `own` says how, and only one of them"
