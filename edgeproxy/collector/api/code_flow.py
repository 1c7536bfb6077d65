"""Sign-in with a browser at an issuer: the authorization code flow of OpenID Connect, with PKCE (RFC 7636).

The browser keeps one secret in a cookie. `state`, `nonce` and the verifier are derived from it, so the collector stores
nothing for sign-ins that are never finished.
"""

import base64
import hashlib
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

import aiohttp
import jwt

from edgeproxy.base.http_peer import open_session
from edgeproxy.base.issuer_documents import PEER, fetch_metadata, read_json
from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.issuer_keys import FRESH_SECONDS
from edgeproxy.collector.pages.api import SignInDeniedError
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.collector.operators import read_issuer

AWAY = "the issuer does not answer as it should: try again later"


T = TypeVar("T")


class Client(NamedTuple):
    """The registration of this client at an issuer, and its requested scopes."""

    issuer: str
    id: str
    secret: str | None
    scopes: str = "openid"
    acr: tuple[str, ...] = ()
    """The `acr` values that prove a second factor when one is requested."""


class CodeFlow(Generic[T]):
    """The flow at an issuer. `judge` verifies an ID token and returns the person, or raises DeniedError."""

    def __init__(self, client: Client, judge: Callable[[str], Awaitable[T]]) -> None:
        self.client = client
        """The registration. A reload replaces its secret."""
        self._judge = judge
        self._metadata: JsonObject = {}
        self._fresh_until = -math.inf

    async def begin(self, secret: str, back: str, *, again: bool) -> str:
        """Return the issuer's URL for the browser. Raises SignInDeniedError."""
        metadata = await self._fetch_metadata()
        query = {
            "response_type": "code",
            "client_id": self.client.id,
            "redirect_uri": back,
            "scope": self.client.scopes,
            "state": derive_secret(secret, "state"),
            "nonce": derive_secret(secret, "nonce"),
            "code_challenge": compute_challenge(derive_secret(secret, "verifier")),
            "code_challenge_method": "S256",
        }
        if again:
            query |= {"prompt": "login", "max_age": "0"}
            if self.client.acr:
                query["acr_values"] = " ".join(self.client.acr)
        return add_query(str(metadata["authorization_endpoint"]), query)

    async def finish(self, secret: str, back: str, query: Mapping[str, str]) -> T:
        """Return the person who signed in. Raises SignInDeniedError."""
        if not is_derived(query.get("state", ""), secret, "state"):
            raise SignInDeniedError(
                request_codes.SIGN_IN_FAILED, "the sign-in was not begun in this browser: begin again"
            )
        if query.get("iss", self.client.issuer) != self.client.issuer:  # RFC 9207
            raise SignInDeniedError(request_codes.SIGN_IN_FAILED, "another issuer answered")
        if "code" not in query:
            raise SignInDeniedError(
                request_codes.SIGN_IN_FAILED,
                f"the issuer let nobody sign in: {format_printable(query.get('error', 'no code'))}",
            )
        token = await self._exchange_code(query["code"], derive_secret(secret, "verifier"), back)
        try:
            who = await self._judge(token)
        except auth.DeniedError as error:
            raise SignInDeniedError(error.code, error.why, error.actor) from None
        claims = jwt.decode(token, options={"verify_signature": False})  # It was verified above.
        if not is_for(claims, self.client.id):
            raise SignInDeniedError(request_codes.SIGN_IN_FAILED, "the token was made for another client")
        if not is_derived(str(claims.get("nonce")), secret, "nonce"):
            raise SignInDeniedError(request_codes.SIGN_IN_FAILED, "the token was made for another sign-in")
        return who

    async def _fetch_metadata(self) -> JsonObject:
        """Return the issuer's metadata. It is cached, because anyone may start a sign-in. Raises SignInDeniedError."""
        if time.monotonic() < self._fresh_until:
            return self._metadata
        try:
            metadata = await fetch_metadata(self.client.issuer)
            for name in ("authorization_endpoint", "token_endpoint"):
                # An endpoint may have a query (RFC 6749 section 3.1), an issuer may not.
                read_issuer(str(metadata.get(name)).partition("?")[0])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise SignInDeniedError(request_codes.ISSUER_UNAVAILABLE, AWAY) from None
        self._metadata, self._fresh_until = metadata, time.monotonic() + FRESH_SECONDS
        return metadata

    async def _exchange_code(self, code: str, verifier: str, back: str) -> str:
        """Exchange a code for the ID token. Raises SignInDeniedError."""
        metadata = await self._fetch_metadata()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        login = None
        if self.client.secret is None:
            form["client_id"] = self.client.id
        else:
            login = aiohttp.BasicAuth(self.client.id, self.client.secret)
        try:
            async with (
                open_session(PEER) as session,
                session.post(str(metadata["token_endpoint"]), data=form, auth=login, allow_redirects=False) as answer,
            ):
                tokens = await read_json(answer, "the token endpoint")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise SignInDeniedError(
                request_codes.SIGN_IN_FAILED, "the issuer did not accept the sign-in: begin again"
            ) from None
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise SignInDeniedError(request_codes.SIGN_IN_FAILED, "the issuer sent no ID token")
        return token


def add_query(url: str, query: Mapping[str, str]) -> str:
    """Return a URL with additional query parameters."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


def is_for(claims: Mapping[str, object], client: str) -> bool:
    """Return True if an ID token whose `aud` has the client was issued for it (OpenID Connect Core 3.1.3.7, 4, 5)."""
    audience = claims["aud"]
    is_shared = isinstance(audience, list) and len(audience) > 1
    return bool(claims.get("azp", None if is_shared else client) == client)


def derive_secret(secret: str, what: str) -> str:
    """Derive the value `what` from a secret. The secret cannot be inferred from it."""
    return encode_base64url(hmac.digest(secret.encode("utf-8", "surrogateescape"), what.encode(), "sha256"))


def is_derived(text: str, secret: str, what: str) -> bool:
    """Return True if `text` equals `derive_secret` of the rest. Untrusted JSON texts may have lone surrogates."""
    return hmac.compare_digest(text.encode(errors="replace"), derive_secret(secret, what).encode())


def compute_challenge(verifier: str) -> str:
    """Return the challenge of a verifier (RFC 7636 section 4.2)."""
    return encode_base64url(hashlib.sha256(verifier.encode()).digest())


def encode_base64url(some: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(some).rstrip(b"=").decode()


def format_printable(text: str) -> str:
    """Return the beginning of an untrusted text for display."""
    return "".join(character if character.isprintable() else "?" for character in text[:80])
