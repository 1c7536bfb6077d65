"""Operators who sign in with a browser: the authorization code flow of OpenID Connect, with PKCE (RFC 7636).

The browser keeps one secret in a cookie. `state`, `nonce` and the verifier are made of it, so that nothing is kept here
for whoever begins to sign in and goes away.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import jwt

from edgeproxy.collector import auth
from edgeproxy.collector.callers import Callers
from edgeproxy.collector.issuer_keys import FETCH_SECONDS_MAX, fetched, read_json
from edgeproxy.config.operators import Operators, read_issuer
from edgeproxy.config.pages import Pages
from edgeproxy.pages.api import Denied
from edgeproxy.pages.sessions import SignedIn

SCOPES = "openid"
AWAY = "the issuer does not answer as it should: try again later"


class CodeFlow:
    """The flow at the issuer of operators."""

    def __init__(self, callers: Callers, operators: Operators, pages: Pages) -> None:
        assert pages.client is not None
        self._callers = callers
        self._operators = operators
        self._client = pages.client
        self._client_secret = pages.client_secret

    async def begin(self, secret: str, back: str, *, again: bool) -> str:
        """Return where the browser goes; raises Denied."""
        said = await self._discovered()
        query = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": back,
            "scope": SCOPES,
            "state": made_of(secret, "state"),
            "nonce": made_of(secret, "nonce"),
            "code_challenge": challenge(made_of(secret, "verifier")),
            "code_challenge_method": "S256",
        }
        if again:
            query |= {"prompt": "login", "max_age": "0"}
            if self._operators.second_factor.acr:
                query["acr_values"] = " ".join(self._operators.second_factor.acr)
        return f"{said['authorization_endpoint']}?{urlencode(query)}"

    async def finish(self, secret: str, back: str, query: Mapping[str, str]) -> SignedIn:
        """Return who signed in; raises Denied."""
        if not hmac.compare_digest(query.get("state", "").encode(), made_of(secret, "state").encode()):
            raise Denied(403, "the sign-in was not begun in this browser: begin again")
        if query.get("iss", self._operators.issuer) != self._operators.issuer:  # RFC 9207
            raise Denied(403, "another issuer answered")
        if "code" not in query:
            raise Denied(403, f"the issuer let nobody sign in: {printable(query.get('error', 'no code'))}")
        token = await self._exchanged(query["code"], made_of(secret, "verifier"), back)
        try:
            holder = await self._callers.operator(token, self._client)
        except auth.Denied as no:
            raise Denied(no.status, no.detail, no.actor) from None
        claims = jwt.decode(token, options={"verify_signature": False})  # It was verified just now.
        if not is_for(claims, self._client):
            raise Denied(403, "the token was made for another client", holder.label)
        if not hmac.compare_digest(str(claims.get("nonce")).encode(), made_of(secret, "nonce").encode()):
            raise Denied(403, "the token was made for another sign-in", holder.label)
        return SignedIn(holder.label, holder.roles, None, holder.factor_at)

    async def _discovered(self) -> dict[str, Any]:
        """Return what the issuer says of itself; raises Denied."""
        try:
            said = await fetched(self._operators.issuer)
            for name in ("authorization_endpoint", "token_endpoint"):
                read_issuer(str(said.get(name)))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise Denied(503, AWAY) from None
        return said

    async def _exchanged(self, code: str, verifier: str, back: str) -> str:
        """Return the ID token for a code; raises Denied."""
        said = await self._discovered()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        login = None
        if self._client_secret is None:
            form["client_id"] = self._client
        else:
            login = aiohttp.BasicAuth(self._client, self._client_secret)
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(said["token_endpoint"], data=form, auth=login, allow_redirects=False) as answer,
            ):
                found = await read_json(answer, "the token endpoint")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise Denied(403, "the issuer did not accept the sign-in: begin again") from None
        token = found.get("id_token")
        if not isinstance(token, str):
            raise Denied(403, "the issuer sent no ID token")
        return token


def is_for(claims: Mapping[str, Any], client: str) -> bool:
    """Whether an ID token whose `aud` names the client was made for it (OpenID Connect Core 3.1.3.7, 4 and 5)."""
    audience = claims["aud"]
    is_shared = isinstance(audience, list) and len(audience) > 1
    return bool(claims.get("azp", None if is_shared else client) == client)


def made_of(secret: str, what: str) -> str:
    """Return what a secret stands for as `what`, of which the secret cannot be guessed."""
    return encoded(hmac.digest(secret.encode("utf-8", "surrogateescape"), what.encode(), "sha256"))


def challenge(verifier: str) -> str:
    """Return the challenge of a verifier (RFC 7636 section 4.2)."""
    return encoded(hashlib.sha256(verifier.encode()).digest())


def encoded(some: bytes) -> str:
    """Return base64 as URLs have it, without padding."""
    return base64.urlsafe_b64encode(some).rstrip(b"=").decode()


def printable(said: str) -> str:
    """Return the beginning of what somebody else wrote."""
    return "".join(one if one.isprintable() else "?" for one in said[:80])
