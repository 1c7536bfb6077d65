"""Authentication of the collector's callers, by tokens from the configuration, the database or an issuer."""

import time

from edgeproxy.base import bearer
from edgeproxy.collector.accounts import tokens
from edgeproxy.collector.api import operators
from edgeproxy.collector.api.auth import CUSTOMER, DeniedError, Holder, deny_token
from edgeproxy.collector.api.issuer_keys import IssuerKeys
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.collector.settings import CollectorSettings

MADE_HERE = f"{tokens.PREFIX}_v1_"
"""The prefix of secrets for tokens that were created over HTTP."""


class Callers:
    """All known callers under the current settings."""

    def __init__(self, settings: CollectorSettings, database: Database) -> None:
        self._database = database
        self._keys: IssuerKeys | None = None
        self.use(settings)

    def use(self, settings: CollectorSettings) -> None:
        """Accept the callers of these settings. The keys of an unchanged issuer are kept."""
        self._tokens = bearer.Tokens(settings.tokens)
        self._operators = settings.operators
        if settings.operators is None:
            self._keys = None
        elif self._keys is None or self._keys.issuer != settings.operators.issuer:
            self._keys = IssuerKeys(settings.operators.issuer)

    async def holder(self, authorization: str | None) -> Holder:
        """Return the caller with an `Authorization` field. Raises DeniedError."""
        try:
            secret = bearer.parse_bearer(authorization)
            if self._operators is not None and self._keys is not None and operators.is_meant(secret):
                return await self.operator(secret, self._operators.audience)
            if secret.startswith(MADE_HERE) and (holder := await self._made_here(secret)) is not None:
                return holder
            return Holder.of(self._tokens.holder(authorization, time.time()))
        except bearer.InvalidTokenError as error:
            raise deny_token(error) from None

    async def operator(self, token: str, audience: str) -> Holder:
        """Return the person with an issuer's token for `audience`. Raises DeniedError."""
        if self._operators is None or self._keys is None:
            raise DeniedError(request_codes.TOKEN_INVALID, "no issuer is known here")
        keys = await self._keys.with_key(operators.key_id(token))
        settings = self._operators
        if settings.audience != audience:
            settings = settings.model_copy(update={"audience": audience})
        return operators.operator(token, keys, settings)

    async def _made_here(self, secret: str) -> Holder | None:
        """Return the holder of a token created over HTTP, or None if there is no such token.

        Raises InvalidTokenError.
        """
        async with self._database.reading() as connection:
            match = await tokens.find_by_secret(connection, secret)
        if match is None:
            return None
        row = match.token
        if tokens.has_secret_ended(match):
            raise bearer.InvalidTokenError(f"this secret of the token {row.name} was replaced", actor=row.name)
        if tokens.has_expired(row):
            raise bearer.InvalidTokenError(f"the token {row.name} has expired", actor=row.name)
        return Holder(row.name, frozenset({row.role or CUSTOMER}), row.customer, row.edge, row.region)
