"""The table of endpoints: privacy requests."""

from edgeproxy.collector.api.endpoint import CREATE, SUPPORT, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.privacy_requests.handlers import PrivacyRequestHandlers, PrivacyRequestsQuery
from edgeproxy.collector.privacy.requests import (
    CreatePrivacyRequest,
    PrivacyRequest,
    PrivacyRequestList,
    PrivacyRequestStep,
)

GROUP = Group(
    "privacy-requests",
    "Requests of people about their data: the request, its deadline, and the steps taken.",
    PrivacyRequestHandlers,
    (
        Endpoint(
            "GET",
            "/v1/privacy/requests",
            PrivacyRequestHandlers.list_requests,
            "List requests of people, oldest first.",
            roles=SUPPORT,
            query=PrivacyRequestsQuery,
            response=PrivacyRequestList,
        ),
        Endpoint(
            "POST",
            "/v1/privacy/requests",
            PrivacyRequestHandlers.create_request,
            "Record a request of a person. This changes nothing else.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=CreatePrivacyRequest,
            response=PrivacyRequest,
            status=201,
            change=CREATE,
            example={
                "kind": "erasure",
                "law": "gdpr",
                "person": "Ada, by mail",
                "note": "Wants all that we have of her to be deleted.",
            },
        ),
        Endpoint(
            "POST",
            "/v1/privacy/requests/{request}/steps",
            PrivacyRequestHandlers.add_step,
            "Add a step to a request. The states `done`, `refused` and `withdrawn` end it.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=PrivacyRequestStep,
            response=PrivacyRequest,
            status=201,
            change=CREATE,
            example={"state": "identified", "note": "Signed in as the contact of the account."},
        ),
    ),
    parameters={"request": PathParameter("The id of the request.")},
)
