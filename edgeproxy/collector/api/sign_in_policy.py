"""Sign-in by ID token: operators by their roles, customers' contacts by an address that the issuer verified."""

from edgeproxy.collector.api import operators
from edgeproxy.collector.api.auth import DeniedError
from edgeproxy.collector.api.callers import Callers
from edgeproxy.collector.api.issuer_keys import IssuerKeys
from edgeproxy.collector.pages.sessions import SignedIn, VerifiedContact
from edgeproxy.config.collector.pages import MAILBOX, CustomerSignIn


class OperatorSignIn:
    """The sign-in of operators, by the same rules as the API."""

    def __init__(self, callers: Callers, client: str) -> None:
        self._callers = callers
        self._client = client

    async def judge(self, token: str) -> SignedIn:
        """Return which operator comes; raises DeniedError."""
        holder = await self._callers.operator(token, self._client)
        return SignedIn(holder.label, holder.roles, None, holder.factor_at)


class CustomerContactSignIn:
    """The sign-in of people by e-mail address; the database has the customers whose contacts they are."""

    def __init__(self, settings: CustomerSignIn) -> None:
        self._settings = settings
        self._keys = IssuerKeys(settings.issuer)

    async def judge(self, token: str) -> VerifiedContact:
        """Return who comes, and when the issuer saw them sign in; raises DeniedError."""
        settings = self._settings
        keys = await self._keys.with_key(operators.key_id(token))
        claims = operators.believed(token, keys, settings.issuer, settings.client, settings.algorithms)
        email = claims.get("email")
        if not isinstance(email, str) or not MAILBOX.fullmatch(email):
            raise DeniedError(403, "the issuer tells no e-mail address")
        if claims.get("email_verified") is not True:
            raise DeniedError(403, "the issuer has not verified the e-mail address")
        return VerifiedContact(email.lower(), operators.read_auth_time(claims.get("auth_time")))
