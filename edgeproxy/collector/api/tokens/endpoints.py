"""The table of endpoints: tokens."""

from edgeproxy.collector.accounts.tokens import (
    CreateTokenRequest,
    CreateTokenSecretRequest,
    TokenList,
    TokenResponse,
    TokenWithSecret,
)
from edgeproxy.collector.api.endpoint import ADMIN, CREATE, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.tokens.handlers import TokenHandlers

GROUP = Group(
    "tokens",
    "Tokens of operators, services, edges and customers for this API.",
    TokenHandlers,
    (
        Endpoint(
            "GET",
            "/v1/tokens",
            TokenHandlers.list_tokens,
            "List all tokens, without secrets.",
            roles=ADMIN,
            response=TokenList,
        ),
        Endpoint(
            "POST",
            "/v1/tokens",
            TokenHandlers.create_token,
            "Create a token. Only this answer contains its secret. Roles of people need a second factor.",
            roles=ADMIN,
            query=ChangeQuery,
            body=CreateTokenRequest,
            response=TokenWithSecret,
            status=201,
            change=CREATE,
            example={"name": "worker", "role": "service"},
        ),
        Endpoint(
            "GET",
            "/v1/tokens/{token}",
            TokenHandlers.fetch_token,
            "Fetch a token, without its secrets.",
            roles=ADMIN,
            response=TokenResponse,
        ),
        Endpoint(
            "POST",
            "/v1/tokens/{token}",
            TokenHandlers.add_secret,
            "Add a secret to a token. Its other secrets expire after the overlap.",
            roles=ADMIN,
            query=ChangeQuery,
            body=CreateTokenSecretRequest,
            response=TokenWithSecret,
            status=201,
            change=CREATE,
            example={"overlap": "0s"},
        ),
        Endpoint(
            "DELETE",
            "/v1/tokens/{token}",
            TokenHandlers.revoke_token,
            "Revoke a token and all of its secrets at once.",
            roles=ADMIN,
            query=ChangeQuery,
            response=TokenResponse,
        ),
    ),
    parameters={"token": PathParameter("The name of the token; in paths of the directory, the token of a version.")},
)
