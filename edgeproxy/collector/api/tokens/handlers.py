"""Tokens of the API, in addition to those in the collector's file."""

import time

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import tokens
from edgeproxy.collector.accounts.tokens import (
    SENSITIVE_ROLES,
    CreateTokenRequest,
    CreateTokenSecretRequest,
    TokenResponse,
)
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.responses import answer
from edgeproxy.config.collector.settings import Token


class TokenHandlers(ChangeHandlers):
    """Handlers of tokens."""

    async def list_tokens(self, _: Call[Query, Nothing]) -> web.Response:
        """List all tokens: first those in the file, then those created here."""
        async with self._database.reading() as connection:
            created = await tokens.list_tokens(connection)
        return answer(200, {"tokens": [*map(file_token_to_response, self._settings.tokens), *created]})

    async def fetch_token(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a token."""
        name = call.path("token")
        for token in self._settings.tokens:
            if token.label == name:
                return answer(200, file_token_to_response(token))
        async with self._database.reading() as connection:
            return answer(200, await tokens.get_token(connection, name))

    async def create_token(self, call: Call[ChangeQuery, CreateTokenRequest]) -> web.Response:
        """Create a token. Only this answer has its secret."""
        require_token_consent(call.holder, call.body.role)

        async def make(connection: AsyncConnection) -> ChangeResult:
            file_names = {token.label for token in self._settings.tokens}
            return ChangeResult(201, await tokens.create_token(connection, call.caller, call.body, file_names))

        return await self._change(call, make, creates=True, hides="secret")

    async def add_secret(self, call: Call[ChangeQuery, CreateTokenSecretRequest]) -> web.Response:
        """Add a secret to a token. Its other secrets expire after the overlap."""
        name = call.path("token")

        async def permit(connection: AsyncConnection) -> None:
            require_token_consent(call.holder, (await tokens.get_row(connection, name)).role)

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(201, await tokens.add_secret(connection, call.caller, name, call.body.overlap))

        return await self._change(call, make, creates=True, hides="secret", permit=permit)

    async def revoke_token(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Revoke a token at once."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(200, await tokens.revoke_token(connection, call.caller, call.path("token")))

        return await self._change(call, make)


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
