"""An authority that speaks ACME (RFC 8555), for tests: a server of HTTPS in threads.

It checks each request's signature (ES256), nonce, URL and account, and validates challenges by connecting to the edge:
over HTTP (section 8.3), and in a handshake with the certificate of RFC 8737. It issues a certificate if the CSR has the
names of the order. It looks up no names: each domain is at the two given ports of the loopback. It has no revocation,
no change of keys, no external accounts, and only the errors that the tests need.
"""

import base64
import hashlib
import json
import secrets
import socket
import ssl
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from loadtest.testbed.ports import HOST
from tests.edge.proxy.authority import Authority

ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class AcmeRefusalError(Exception):
    """A refusal: its type after `urn:ietf:params:acme:error:`, and its status."""

    def __init__(self, kind: str, status: int = 400, detail: str = "", **fields: str) -> None:
        super().__init__(kind)
        self.status, self.fields = status, fields
        self.body = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail or kind, "status": status}


class AcmeAuthority:
    """The authority. Its attributes may be changed while it runs."""

    def __init__(self, folder: Path, http: int, tls: int) -> None:
        """The authority checks challenges at the edge's ports `http` and `tls`."""
        self.http, self.tls = http, tls
        self.kinds = ["http-01", "tls-alpn-01"]
        """The challenges that are offered."""
        self.life, self.age = timedelta(days=90), timedelta(0)
        """The life of certificates from now on, and their age when they are issued."""
        self.refusal: AcmeRefusalError | None = None
        """The answer to each order."""
        self.suggested: datetime | None = None
        """The moment of renewal that is suggested (RFC 9773)."""
        self.accounts: dict[str, dict[str, Any]] = {}
        """The public key of each account, by its URL."""
        self.orders: list[dict[str, Any]] = []
        self.renewals: list[str] = []
        """The names of certificates whose renewal information was requested (RFC 9773 section 4.1)."""
        self.replaces: list[str | None] = []
        """The certificate that each order names as replaced, also of refused orders."""
        self.knows_as_replaced = False
        """Refuse orders that name a certificate."""
        self.checked: list[str] = []
        """The kinds of the challenges that were passed."""
        self.on_check: Callable[[], object] = lambda: None
        """Called before each check of a challenge."""
        self._nonces: set[str] = set()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acme")])
        web = Authority(folder, "web")
        self.file = web.file
        """The authority of this server's own certificate."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                authority.serve(self)

            do_POST = do_HEAD = do_GET

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = web.serving("localhost").wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    # ---- requests

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        status, fields, body = 200, {}, b""
        try:
            content = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            status, fields, body = self.answer(handler.command, handler.path, content)
            kind = "application/json"
        except AcmeRefusalError as error:
            status, fields, body = error.status, error.fields, error.body
            kind = "application/problem+json"
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body != b"" else b""
        nonce = secrets.token_urlsafe(16)
        self._nonces.add(nonce)
        handler.send_response(status)
        sent = {"Content-Type": kind, "Content-Length": str(len(data)), "Replay-Nonce": nonce}
        for name, value in {**sent, **{name.replace("_", "-"): value for name, value in fields.items()}}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def answer(self, method: str, path: str, content: bytes) -> tuple[int, dict[str, str], Any]:
        """Return status, fields and body."""
        if path == "/directory":
            names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "renewalInfo": "renewal"}
            ari = self.suggested is not None
            links = {name: f"{self.url}/{at}" for name, at in names.items() if ari or name != "renewalInfo"}
            return 200, {}, links | {"meta": {"termsOfService": f"{self.url}/terms"}}
        if path == "/nonce":
            return 200, {}, b""
        if path.startswith("/renewal/") and self.suggested is not None:
            self.renewals.append(path.removeprefix("/renewal/"))
            moment = self.suggested.strftime("%Y-%m-%dT%H:%M:%SZ")
            return 200, {"Retry-After": "21600"}, {"suggestedWindow": {"start": moment, "end": moment}}
        if method != "POST":
            raise AcmeRefusalError("malformed", 405)
        account, payload = self._open(path, content)
        what, *rest = path.removeprefix("/").split("/")
        if what == "account":
            return self._register(payload)
        assert account is not None
        if what == "order" and not rest:
            return self._order(account, payload)
        order = self.orders[int(rest[0])]
        if order["account"] != account:
            raise AcmeRefusalError("unauthorized", 403)
        return getattr(self, f"_serve_{what}")(order, payload, rest)

    def _open(self, path: str, content: bytes) -> tuple[str | None, Any]:
        """Check the signature of a request (RFC 8555 section 6). Return the account's URL, if any, and the payload."""
        jws = json.loads(content)
        protected = json.loads(decode(jws["protected"]))
        if protected["nonce"] not in self._nonces:
            raise AcmeRefusalError("badNonce")
        self._nonces.remove(protected["nonce"])
        if protected["url"] != self.url + path or protected["alg"] != "ES256":
            raise AcmeRefusalError("unauthorized", 401)
        if (path == "/account") != ("jwk" in protected) or ("jwk" in protected) == ("kid" in protected):
            raise AcmeRefusalError("malformed")
        jwk = protected.get("jwk") or self.accounts.get(protected["kid"])
        if jwk is None:
            raise AcmeRefusalError("accountDoesNotExist", 401)
        x, y = (int.from_bytes(decode(jwk[name]), "big") for name in "xy")
        signature = decode(jws["signature"])
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        signed = f"{jws['protected']}.{jws['payload']}".encode()
        try:
            key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise AcmeRefusalError("unauthorized", 401) from None
        payload = json.loads(decode(jws["payload"])) if jws["payload"] else None
        return protected.get("kid"), (payload, jwk) if path == "/account" else payload

    def _register(self, registration: tuple[dict[str, Any], dict[str, Any]]) -> tuple[int, dict[str, str], Any]:
        payload, jwk = registration
        for url, known in self.accounts.items():
            if known == jwk:
                return 200, {"Location": url}, {"status": "valid"}
        if not payload.get("termsOfServiceAgreed"):
            raise AcmeRefusalError("userActionRequired", 403)
        url = f"{self.url}/accounts/{len(self.accounts)}"
        self.accounts[url] = jwk
        return 201, {"Location": url}, {"status": "valid", "contact": payload.get("contact", [])}

    def _order(self, account: str, payload: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if self.refusal is not None:
            raise self.refusal
        self.replaces.append(payload.get("replaces"))
        if self.knows_as_replaced and self.replaces[-1] is not None:
            raise AcmeRefusalError("alreadyReplaced", 409)
        names = [identifier["value"] for identifier in payload["identifiers"]]
        tokens = [secrets.token_urlsafe(32) for _ in names]
        states = ["pending" for _ in names]
        self.orders.append({"account": account, "names": names, "tokens": tokens, "states": states, "pem": ""})
        number = len(self.orders) - 1
        return 201, {"Location": f"{self.url}/orders/{number}"}, self._describe(number)

    def _describe(self, number: int) -> dict[str, Any]:
        order = self.orders[number]
        if "invalid" in order["states"]:
            status = "invalid"
        elif "pending" in order["states"]:
            status = "pending"
        else:
            status = "valid" if order["pem"] else "ready"
        described = {
            "status": status,
            "identifiers": [{"type": "dns", "value": name} for name in order["names"]],
            "authorizations": [f"{self.url}/authorization/{number}/{index}" for index in range(len(order["names"]))],
            "finalize": f"{self.url}/finalize/{number}",
        }
        return described | ({"certificate": f"{self.url}/certificate/{number}"} if order["pem"] else {})

    def _serve_orders(self, order: dict[str, Any], payload: object, rest: list[str]) -> tuple[int, dict[str, str], Any]:
        return 200, {}, self._describe(int(rest[0]))

    def _serve_authorization(self, order: dict[str, Any], payload: object, rest: list[str]) -> tuple[int, dict, Any]:
        index = int(rest[1])
        offered = [self._describe_challenge(order, rest[0], index, kind) for kind in self.kinds]
        identifier = {"type": "dns", "value": order["names"][index]}
        return 200, {}, {"status": order["states"][index], "identifier": identifier, "challenges": offered}

    def _describe_challenge(self, order: dict[str, Any], number: str, index: int, kind: str) -> dict[str, Any]:
        described = {"type": kind, "token": order["tokens"][index], "status": order["states"][index]}
        described["url"] = f"{self.url}/challenge/{number}/{index}/{kind}"
        if order["states"][index] == "invalid":
            described["error"] = {"type": "urn:ietf:params:acme:error:unauthorized", "detail": order["why"]}
        return described

    def _serve_challenge(self, order: dict[str, Any], payload: object, rest: list[str]) -> tuple[int, dict, Any]:
        number, index, kind = rest[0], int(rest[1]), rest[2]
        jwk = self.accounts[order["account"]]
        thumbprint = encode(hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest())
        token = order["tokens"][index]
        check = self._check_http if kind == "http-01" else self._check_tls
        try:
            self.on_check()
            check(order["names"][index], token, f"{token}.{thumbprint}")
        except (OSError, ValueError) as error:
            order["states"][index], order["why"] = "invalid", f"{kind}: {error}"
        else:
            order["states"][index] = "valid"
            self.checked.append(kind)
        up = f'<{self.url}/authorization/{number}/{index}>;rel="up"'
        return 200, {"Link": up}, self._describe_challenge(order, number, index, kind)

    def _check_http(self, name: str, token: str, expected: str) -> None:
        """Raise OSError or ValueError unless the edge answers (RFC 8555 section 8.3)."""
        url = f"http://{HOST}:{self.http}/.well-known/acme-challenge/{token}"
        request = urllib.request.Request(url, headers={"Host": name})
        with urllib.request.urlopen(request, timeout=10) as answer:
            if answer.read().decode().rstrip() != expected:
                raise ValueError("another content than the key authorization")

    def _check_tls(self, name: str, token: str, expected: str) -> None:
        """Raise OSError or ValueError unless the edge has the certificate (RFC 8737 section 3)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        with (
            socket.create_connection((HOST, self.tls), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            if tls.selected_alpn_protocol() != "acme-tls/1":
                raise ValueError("acme-tls/1 is not selected")
            shown = tls.getpeercert(binary_form=True)
        assert shown is not None
        certificate = x509.load_der_x509_certificate(shown)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        identifier = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
        digest = b"\x04\x20" + hashlib.sha256(expected.encode()).digest()
        if names.get_values_for_type(x509.DNSName) != [name] or not identifier.critical:
            raise ValueError("the certificate has another name, or no critical acmeIdentifier")
        if identifier.value.value != digest:
            raise ValueError("another digest than that of the key authorization")

    def _serve_finalize(self, order: dict[str, Any], payload: dict[str, Any], rest: list[str]) -> tuple[int, dict, Any]:
        csr = x509.load_der_x509_csr(decode(payload["csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if not csr.is_signature_valid or names.value.get_values_for_type(x509.DNSName) != order["names"]:
            raise AcmeRefusalError("badCSR")
        if self._describe(int(rest[0]))["status"] != "ready":
            raise AcmeRefusalError("orderNotReady", 403)
        begin = datetime.now(UTC) - self.age
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + self.life)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(names.value, critical=True)
        )
        order["pem"] = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        return 200, {"Location": f"{self.url}/orders/{rest[0]}"}, self._describe(int(rest[0]))

    def _serve_certificate(self, order: dict[str, Any], payload: object, rest: list[str]) -> tuple[int, dict, Any]:
        return 200, {}, order["pem"]


def decode(text: str) -> bytes:
    """Return the bytes of unpadded base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(data: bytes) -> str:
    """Return bytes as unpadded base64url."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
