"""The table of endpoints: keys."""

from edgeproxy.collector.accounts import keys
from edgeproxy.collector.accounts.models import (
    CreateKeyRequest,
    Key,
    KeyList,
    KeyWithSecret,
    LeakReport,
    LeakReportResult,
    RotateKeyRequest,
    UpdateKeyRequest,
)
from edgeproxy.collector.api.endpoint import ADMIN, ANYONE, CREATE, OWN, READERS, SUPPORT, UPDATE, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import CUSTOMER, Group, PathParameter
from edgeproxy.collector.api.keys.handlers import KeyHandlers
from edgeproxy.collector.api.keys.models import KeysQuery
from edgeproxy.collector.api.request_limits import RequestRate

GROUP = Group(
    "keys",
    "API keys of customers: create, change, rotate, revoke, report leaks.",
    KeyHandlers,
    (
        Endpoint(
            "GET",
            "/v1/customers/{customer}/keys",
            KeyHandlers.list_keys,
            "List the keys of a customer, without secrets.",
            roles=READERS | OWN,
            query=KeysQuery,
            response=KeyList,
        ),
        Endpoint(
            "POST",
            "/v1/customers/{customer}/keys",
            KeyHandlers.create_key,
            "Create a key; its secret is in this answer alone. A customer's is at most as wide as one it has.",
            roles=ADMIN | OWN,
            query=ChangeQuery,
            body=CreateKeyRequest,
            response=KeyWithSecret,
            status=201,
            change=CREATE,
            example={"name": "production", "scopes": ["read"]},
        ),
        Endpoint(
            "GET",
            "/v1/keys/{key}",
            KeyHandlers.fetch_key,
            "Fetch a key, without its secret.",
            roles=READERS | OWN,
            response=Key,
            response_headers=("ETag",),
        ),
        Endpoint(
            "PATCH",
            "/v1/keys/{key}",
            KeyHandlers.update_key,
            "Update a key: null removes a field. A customer can make it narrower, not wider.",
            roles=ADMIN | OWN,
            query=ChangeQuery,
            body=UpdateKeyRequest,
            response=Key,
            change=UPDATE,
            example={"name": "production, Amsterdam"},
        ),
        Endpoint(
            "DELETE",
            "/v1/keys/{key}",
            KeyHandlers.revoke_key,
            "Revoke a key at once.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            response=Key,
            change=UPDATE,
        ),
        Endpoint(
            "POST",
            "/v1/keys/{key}/restore",
            KeyHandlers.restore_key,
            "Restore a revoked key, within 24 hours and before it would have expired.",
            roles=ADMIN,
            query=ChangeQuery,
            response=Key,
            change=UPDATE,
            is_sensitive=True,
        ),
        Endpoint(
            "POST",
            "/v1/keys/{key}/rotate",
            KeyHandlers.rotate_key,
            "Rotate a key: create its replacement, and end it after the overlap.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            body=RotateKeyRequest,
            response=KeyWithSecret,
            status=201,
            change=CREATE,
            example={"overlap": "7d"},
        ),
        Endpoint(
            "POST",
            "/v1/keys/leaked",
            KeyHandlers.report_leak,
            "Report leaked keys, which are revoked; only a key itself is proof. The answer is always the same.",
            roles=ANYONE,
            body=LeakReport,
            response=LeakReportResult,
            status=202,
            rate=RequestRate(10, "address"),
            listener_groups=frozenset({"customers"}),
            example={"key": "key_v1_found_in_a_log"},
        ),
    ),
    parameters={"customer": CUSTOMER, "key": PathParameter("The id of the key.", find_owner=keys.find_owner)},
)
