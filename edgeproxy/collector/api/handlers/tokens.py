"""Tokens as data, beside those of the configuration."""

import time
from typing import Any

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
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.handlers.accounts import AccountHandlers
from edgeproxy.collector.api.ledger_models import ChangeQuery
from edgeproxy.collector.api.responses import answer
from edgeproxy.config.collector.settings import Token


class TokenHandlers(AccountHandlers):
    """Makes changes of tokens as those of other accounts are made: one transaction, once for an Idempotency-Key."""

    async def tokens(self, _: Call[Query, Nothing]) -> web.Response:
        """List all tokens: those of the configuration, then those that were made here."""
        async with self._database.reading() as connection:
            made = await tokens.list_tokens(connection)
        return answer(200, {"tokens": [*map(of_file, self._settings.tokens), *made]})

    async def token(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell a token."""
        name = call.path("token")
        for token in self._settings.tokens:
            if token.label == name:
                return answer(200, of_file(token))
        async with self._database.reading() as connection:
            return answer(200, await tokens.get_token(connection, name))

    async def create_token(self, call: Call[ChangeQuery, CreateTokenRequest]) -> web.Response:
        """Make a token, whose secret is in the answer and nowhere else."""
        self._must_have_consent(call, call.body.role)

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            taken = {token.label for token in self._settings.tokens}
            return 201, await tokens.create_token(connection, call.caller, call.body, taken), None

        return await self._change(call, make, creates=True, hides="secret")

    async def add_secret(self, call: Call[ChangeQuery, CreateTokenSecretRequest]) -> web.Response:
        """Give a token another secret."""
        name = call.path("token")

        async def permit(connection: AsyncConnection) -> None:
            self._must_have_consent(call, (await tokens.get_row(connection, name)).role)

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 201, await tokens.add_secret(connection, call.caller, name, call.body.overlap), None

        return await self._change(call, make, creates=True, hides="secret", permit=permit)

    async def revoke_token(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """End a token at once."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 200, await tokens.revoke_token(connection, call.caller, call.path("token")), None

        return await self._change(call, make)

    def _must_have_consent(self, call: Call[Any, Any], role: str | None) -> None:
        """Raise DeniedError where a secret is made for a role of people, and who asks may not do what is sensitive."""
        if role in SENSITIVE_ROLES:
            auth.require_consent(call.holder, f"make a token of the role {role}", time.time())


def of_file(token: Token) -> TokenResponse:
    """Tell a token of the configuration."""
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
