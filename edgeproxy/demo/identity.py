"""The identity provider of the demonstration: operators sign in with a second factor (OpenID Connect, PKCE).

It knows one operator, and its second factor is a code that the demonstration prints.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from html import escape
from typing import NamedTuple
from urllib.parse import urlencode

import jwt
from aiohttp import BasicAuth, web
from cryptography.hazmat.primitives.asymmetric import ec

PATH = "/identity"
CLIENT = "edgeproxy-demo"
"""The client, and the audience of its tokens."""
OPERATOR, GROUP = "ops", "operators"
TOKEN_SECONDS = 300
CODES_MAX = 100
"""Sign-ins that may be under way at once. The oldest gives way."""
WRONG_CODES_MAX = 100
"""Wrong codes until the provider refuses all. A start of the demonstration forgets them."""
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title><style>body {{ font: 16px/1.5 system-ui; max-width: 24rem; margin: 4rem auto; padding: 0 1rem }}
input, button {{ font: inherit; padding: .5rem; width: 100%; box-sizing: border-box; margin: .5rem 0 1rem }}</style>
<h1>Sign in as operator</h1><p>This is the demonstration's identity provider. It asks for the second
factor: the code that the demonstration printed at its start.</p>{fault}<form method="post">{fields}
<label>Second factor<input name="factor" inputmode="numeric" autocomplete="one-time-code" required></label>
<button>Sign in</button></form>"""
ASKED = ("redirect_uri", "state", "nonce", "code_challenge")
"""The parameters that the form keeps."""


class SignIn(NamedTuple):
    """A sign-in that the client may fetch once with its code."""

    nonce: str
    challenge: str
    at: float


class IdentityProvider:
    """The provider at `site`, for a client with this secret that gets its answers at `back`."""

    def __init__(self, site: str, back: str, client_secret: str, factor: str) -> None:
        self._issuer = f"{site}{PATH}"
        self._back = back
        self._login = BasicAuth(CLIENT, client_secret).encode()
        self._factor = factor
        self._wrong = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_id = secrets.token_hex(8)
        self._sign_ins: dict[str, SignIn] = {}

    def add_routes(self, app: web.Application) -> None:
        """Add the provider's routes to an application."""
        app.add_routes(
            [
                web.get(f"{PATH}/.well-known/openid-configuration", self.describe),
                web.get(f"{PATH}/keys", self.list_keys),
                web.get(f"{PATH}/authorize", self.show_form),
                web.post(f"{PATH}/authorize", self.sign_in),
                web.post(f"{PATH}/token", self.exchange_code),
            ]
        )

    async def describe(self, _: web.Request) -> web.Response:
        """Return the metadata (OpenID Connect Discovery)."""
        endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return web.json_response(
            {"issuer": self._issuer} | {name: f"{self._issuer}/{path}" for name, path in endpoints.items()}
        )

    async def list_keys(self, _: web.Request) -> web.Response:
        """Return the public key."""
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return web.json_response({"keys": [key | {"kid": self._key_id, "use": "sig", "alg": "ES256"}]})

    async def show_form(self, request: web.Request) -> web.Response:
        """Ask for the second factor."""
        return self._render({name: request.query.get(name, "") for name in ASKED})

    async def sign_in(self, request: web.Request) -> web.Response:
        """Send the browser back with a code, or show the form again."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        parameters = {name: form.get(name, "") for name in ASKED}
        if parameters["redirect_uri"] != self._back:
            raise web.HTTPBadRequest(text="The client has another address.\n")
        factor = form.get("factor", "").replace(" ", "")
        if self._wrong >= WRONG_CODES_MAX or not hmac.compare_digest(factor.encode(), self._factor.encode()):
            self._wrong += 1
            return self._render(parameters, "<p><strong>This is not the code.</strong></p>")
        code = secrets.token_urlsafe(24)
        self._sign_ins[code] = SignIn(parameters["nonce"], parameters["code_challenge"], time.time())
        while len(self._sign_ins) > CODES_MAX:
            del self._sign_ins[next(iter(self._sign_ins))]
        query = urlencode({"code": code, "state": parameters["state"], "iss": self._issuer})
        raise web.HTTPSeeOther(f"{self._back}?{query}")

    async def exchange_code(self, request: web.Request) -> web.Response:
        """Return the ID token of a sign-in to the client, once."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        sign_in = self._sign_ins.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_client = hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._login.encode())
        if sign_in is None or not is_client or sign_in.challenge != challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = time.time()
        claims = {
            "iss": self._issuer, "sub": OPERATOR, "aud": CLIENT, "nonce": sign_in.nonce, "iat": int(now),
            "exp": int(now) + TOKEN_SECONDS, "auth_time": int(sign_in.at), "amr": ["mfa"], "groups": [GROUP],
        }  # fmt: skip
        token = jwt.encode(claims, self._key, "ES256", {"kid": self._key_id})
        return web.json_response({"access_token": token, "id_token": token, "token_type": "Bearer"})

    def _render(self, parameters: dict[str, str], fault: str = "") -> web.Response:
        fields = "".join(f'<input type="hidden" name="{name}" value="{escape(parameters[name])}">' for name in ASKED)
        return web.Response(text=PAGE.format(fields=fields, fault=fault), content_type="text/html")
