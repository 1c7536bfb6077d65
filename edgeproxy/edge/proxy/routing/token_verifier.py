"""Tokens of other issuers (JWT, RFC 7519): their verification, and the customer that they name.

The configuration names the algorithms, all with public keys (RFC 8725 sections 3.1 and 3.2). The keys come from the
supervisor. A token is verified once, and cached by its digest (identity.py). `jwt` and its `cryptography` are imported
only if there are issuers: a worker without them saves 9 MB.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import orjson

from edgeproxy.base.signing_keys import parse_signing_keys, select_keys
from edgeproxy.config.subject_names import subject_name
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.limits.route_limits import END_USER_BYTES, NO_CLAIMS

if TYPE_CHECKING:
    import jwt

    from edgeproxy.config.edge.issuers import Issuer

TOKEN_BYTES_MAX = 16 << 10
LEEWAY_SECONDS = 30.0
"""The clocks of issuer and edge may differ by this many seconds."""


class Claims(NamedTuple):
    """The relevant claims of a token."""

    customer: str
    """The customer's name (config/subject_names.py)."""
    tier: str | None
    scopes: frozenset[str]
    id: str | None
    """The claim jti."""
    expires: float
    """Unix seconds until which the token is valid: its own expiry, plus the leeway for clocks."""
    subject: str
    """The SHA-256 in hex of issuer and subject: the key for limits of the scope `key`, equal for all of a subject's
    tokens.
    """
    names: Mapping[str, bytes] = NO_CLAIMS
    """The digests of all claims that are a text or a whole number. Any of them may name an end user."""


class InvalidTokenError(Exception):
    """A token is invalid; the text is for its sender."""


def is_token(secret: bytes) -> bool:
    """Return whether a credential has the form of a JWT (RFC 7515 section 3.1): three parts, the first of them JSON."""
    return secret.startswith(b"eyJ") and secret.count(b".") == 2


def parse_keys(jwks: str) -> list["jwt.PyJWK"]:
    """Return the usable public keys of a JWK Set in JSON. Raises ValueError if it is not one."""
    key_set = orjson.loads(jwks)
    return parse_signing_keys(key_set if isinstance(key_set, dict) else {})


class TokenVerifier:
    """The issuers of a configuration.

    `keys` has the supervisor's last keys of each issuer by name, or none yet. `request_keys` is called with the name of
    an issuer when one of its tokens is signed with an unknown key.
    """

    def __init__(
        self,
        settings: Mapping[str, "Issuer"],
        keys: Mapping[str, list["jwt.PyJWK"]],
        request_keys: Callable[[str], None],
    ) -> None:
        import jwt

        self._jwt = jwt  # Imported by prepared_configuration.py before requests come.
        self._by_iss = {setting.issuer: (name, setting) for name, setting in settings.items()}
        self._keys, self._request_keys = keys, request_keys

    def verify(self, token: bytes) -> Claims:
        """Return the claims of a token that is genuine and valid now.

        Raises InvalidTokenError, or RejectedError if the issuer's keys are not known yet.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidTokenError("The token is too long")
        try:
            # Only the issuer and the name of the key are taken from the token before it is verified.
            unverified = self._jwt.decode_complete(token, options={"verify_signature": False})
        except (self._jwt.PyJWTError, ValueError) as error:
            raise InvalidTokenError("The token cannot be read") from error
        iss = unverified["payload"].get("iss")
        name, issuer = self._by_iss.get(iss if isinstance(iss, str) else "", ("", None))
        if issuer is None:
            raise InvalidTokenError("The token is of an issuer that is not known here")
        try:
            return _parse_claims(self._check_signature(token, unverified["header"], name, issuer), issuer)
        except (OverflowError, UnicodeError, orjson.JSONEncodeError) as error:
            raise InvalidTokenError("The token has claims that cannot be read") from error

    def _check_signature(
        self, token: bytes, header: Mapping[str, object], name: str, issuer: "Issuer"
    ) -> dict[str, object]:
        known = self._keys.get(name)
        if known is None:
            again = b"Retry-After: 1\r\n"
            raise RejectedError(
                503,
                "The keys of the token's issuer are not known here yet",
                close=False,
                fields=again,
                code=problem_codes.CUSTOMER_DATA_UNAVAILABLE,
            )
        keys = select_keys(known, header.get("kid"))
        if not keys:
            self._request_keys(name)
            raise InvalidTokenError("The token is signed with a key that is not known here")
        for key in keys:
            try:
                claims: dict[str, object] = self._jwt.decode(
                    token,
                    key.key,
                    algorithms=list(issuer.algorithms),
                    audience=list(issuer.audiences),
                    issuer=issuer.issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": ["exp", "iss", "aud"]},
                )
            except self._jwt.ExpiredSignatureError as error:
                raise InvalidTokenError("The token has expired") from error
            except self._jwt.InvalidAudienceError as error:
                raise InvalidTokenError("The token is for another audience") from error
            except (self._jwt.PyJWTError, ValueError, TypeError):
                # A variable that keeps the exception would make a reference cycle with this frame. A flood of invalid
                # tokens would then leave garbage that takes one long turn to collect.
                continue
            else:
                return claims
        if any(not key.key_id for key in keys):
            # Keys without a name do not show that the issuer has replaced its key.
            self._request_keys(name)
        raise InvalidTokenError("The token is not genuine")


def _parse_claims(claims: dict[str, object], issuer: "Issuer") -> Claims:
    claim = claims.get(issuer.customer)
    if not isinstance(claim, str) or not claim:
        raise InvalidTokenError(f"The token names no customer: the claim {issuer.customer} is to have the name")
    customer = subject_name(claim)
    tier = claims.get(issuer.tier) if issuer.tier is not None else None
    scopes = claims.get(issuer.scopes, ()) if issuer.scopes is not None else ()
    listed = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else ()
    jti, expires = claims.get("jti"), claims["exp"]
    assert isinstance(expires, int | float | str)  # It was compared with the clock.
    subject = orjson.dumps([issuer.issuer, str(claims.get("sub", claim))])
    return Claims(
        customer,
        tier if isinstance(tier, str) else None,
        frozenset(scope for scope in listed if isinstance(scope, str)),
        jti if isinstance(jti, str) else None,
        float(expires) + LEEWAY_SECONDS,
        hashlib.sha256(subject).hexdigest(),
        {name: _compute_digest(value) for name, value in claims.items() if type(value) in (str, int)},
    )


def _compute_digest(value: object) -> bytes:
    return hashlib.blake2b(str(value).encode(), digest_size=END_USER_BYTES).digest()
