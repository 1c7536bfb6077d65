"""Who asks the collector, by what a request brings along: a token of the configuration, or one of an issuer."""

import time

from edgeproxy import bearer
from edgeproxy.collector import operators
from edgeproxy.collector.auth import Denied, Holder
from edgeproxy.collector.issuer_keys import IssuerKeys
from edgeproxy.config.collector import Settings


class Callers:
    """All who are known, as some settings have them."""

    def __init__(self, settings: Settings) -> None:
        self._keys: IssuerKeys | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Know whom these settings know; an issuer's keys stay while it is the same."""
        self._tokens = bearer.Tokens(settings.tokens)
        self._operators = settings.operators
        if settings.operators is None:
            self._keys = None
        elif self._keys is None or self._keys.issuer != settings.operators.issuer:
            self._keys = IssuerKeys(settings.operators.issuer)

    async def holder(self, authorization: str | None) -> Holder:
        """Return who comes with an `Authorization` field; raises Denied."""
        try:
            secret = bearer.secret(authorization)
            if self._operators is not None and self._keys is not None and operators.is_meant(secret):
                keys = await self._keys.with_key(operators.key_id(secret))
                return operators.operator(secret, keys, self._operators)
            return Holder.of(self._tokens.holder(authorization, time.time()))
        except bearer.Unknown as no:
            raise Denied(401, str(no), {"WWW-Authenticate": no.challenge}, no.actor) from None
