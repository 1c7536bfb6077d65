"""Sign-in by ID token: operators by their roles, contacts of customers by an address verified by the issuer."""

from edgeproxy.collector.api import operators
from edgeproxy.collector.api.auth import DeniedError
from edgeproxy.collector.api.callers import Callers
from edgeproxy.collector.api.issuer_keys import IssuerKeys
from edgeproxy.collector.pages.sessions import SignedIn, VerifiedContact
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.collector.pages import MAILBOX, CustomerSignIn


class OperatorSignIn:
    """The sign-in of operators, with the rules of the API."""

    def __init__(self, callers: Callers, client: str) -> None:
        self._callers = callers
        self._client = client

    async def judge(self, token: str) -> SignedIn:
        """Return the operator with this token. Raises DeniedError."""
        holder = await self._callers.operator(token, self._client)
        return SignedIn(holder.label, holder.roles, None, holder.factor_at)


class CustomerContactSignIn:
    """The sign-in of contacts by e-mail address. The database has the contact's customers."""

    def __init__(self, settings: CustomerSignIn) -> None:
        self._settings = settings
        self._keys = IssuerKeys(settings.issuer)

    async def judge(self, token: str) -> VerifiedContact:
        """Return the person and the time of the sign-in at the issuer. Raises DeniedError."""
        settings = self._settings
        keys = await self._keys.with_key(operators.key_id(token))
        claims = operators.believed(token, keys, settings.issuer, settings.client, settings.algorithms)
        email = claims.get("email")
        if not isinstance(email, str) or not MAILBOX.fullmatch(email):
            raise DeniedError(request_codes.EMAIL_UNVERIFIED, "the issuer tells no e-mail address")
        if claims.get("email_verified") is not True:
            raise DeniedError(request_codes.EMAIL_UNVERIFIED, "the issuer has not verified the e-mail address")
        return VerifiedContact(email.lower(), operators.read_auth_time(claims.get("auth_time")))
