"""Tokens of the API, in addition to those in the collector's file."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import tokens
from edgeproxy.collector.accounts.tokens import (
    SENSITIVE_ROLES,
    CreateTokenRequest,
    CreateTokenSecretRequest,
    TokenList,
    TokenResponse,
    TokenWithSecret,
)
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.endpoint import ADMIN, CREATE, Call, Nothing, Query, delete, get, post
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.responses import Result
from edgeproxy.config.collector.settings import Token


class TokenHandlers(ChangeHandlers):
    """Handlers of tokens."""

    @get("/v1/tokens")
    async def list_tokens(self, _: Call[Query, Nothing]) -> TokenList:
        """List all tokens, without secrets."""
        async with self._database.reading() as connection:
            created = await tokens.list_tokens(connection)
        return {"tokens": [*map(file_token_to_response, self._settings.tokens), *created]}

    @post("/v1/tokens", example={"name": "worker", "role": "service"}, status=201, change=CREATE, hides="secret")
    async def create_token(self, call: Call[ChangeQuery, CreateTokenRequest]) -> Result[TokenWithSecret]:
        """Create a token. Only this answer contains its secret. Roles of people need a second factor."""
        require_token_consent(call.holder, call.body.role)

        async def make(connection: AsyncConnection) -> Result[TokenWithSecret]:
            file_names = {token.label for token in self._settings.tokens}
            return Result(await tokens.create_token(connection, call.caller, call.body, file_names))

        return await self._change(call, make)

    @get("/v1/tokens/{token}")
    async def fetch_token(self, call: Call[Query, Nothing]) -> TokenResponse:
        """Fetch a token, without its secrets."""
        name = call.path("token")
        for token in self._settings.tokens:
            if token.label == name:
                return file_token_to_response(token)
        async with self._database.reading() as connection:
            return await tokens.get_token(connection, name)

    @post("/v1/tokens/{token}", example={"overlap": "0s"}, status=201, change=CREATE, hides="secret")
    async def add_secret(self, call: Call[ChangeQuery, CreateTokenSecretRequest]) -> Result[TokenWithSecret]:
        """Add a secret to a token. Its other secrets expire after the overlap."""
        name = call.path("token")

        async def permit(connection: AsyncConnection) -> None:
            require_token_consent(call.holder, (await tokens.get_row(connection, name)).role)

        async def make(connection: AsyncConnection) -> Result[TokenWithSecret]:
            return Result(await tokens.add_secret(connection, call.caller, name, call.body.overlap))

        return await self._change(call, make, permit)

    @delete("/v1/tokens/{token}")
    async def revoke_token(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> TokenResponse:
        """Revoke a token and all of its secrets at once."""
        return await tokens.revoke_token(connection, call.caller, call.path("token"))


def require_token_consent(holder: Holder, role: str | None) -> None:
    """Raise DeniedError if a secret is for a role of people, and the holder may not do sensitive operations."""
    if role in SENSITIVE_ROLES:
        auth.require_consent(holder, f"make a token of the role {role}", time.time())


def file_token_to_response(token: Token) -> TokenResponse:
    """Return a token from the collector's file in the API's form."""
    return {
        "name": token.label,
        "role": token.role,
        "customer": token.customer,
        "edge": token.edge,
        "region": token.region,
        "source": "file",
        "created_at": None,
        "created_by": None,
        "expires_at": None if token.expires is None else format_timestamp(int(token.expires * 1000)),
        "secrets": len(token.sha256),
    }


GROUP = Group(
    "tokens",
    "Tokens of operators, services, edges and customers for this API.",
    TokenHandlers,
    roles=ADMIN,
    parameters={"token": PathParameter("The name of the token; in paths of the directory, the token of a version.")},
)
