"""A process that requests or renews one certificate by ACME (RFC 8555), and ends.

The library blocks and reads without a bound of time, so the supervisor runs it here and kills the process at a
deadline. The first line of standard input is an `Order` in JSON. A line of standard output is a JSON object:

    {"tokens": {TOKEN: CONTENT}, "certificates": {NAME: FILE}}   challenges to answer; then a line of input is awaited
    {"renew_at": UNIX_SECONDS}                                   the certificate is good until then
    {"why": TEXT, "retry_after": SECONDS or null}                the attempt failed
"""

import hashlib
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.json_util import encode_b64jose
from josepy.json_util import field as jose_field
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from msgspec import Struct, json

import edgeproxy
from edgeproxy.base.outgoing_proxy import describe_way, find_proxy, set_proxy
from edgeproxy.base.trust import set_trust, write_bundle
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.certificates import read_certificate
from edgeproxy.edge.counters.file import write_whole
from edgeproxy.edge.supervisor.self_signed import create_self_signed, dump_key, is_self_signed

CALL_SECONDS = 30
"""Seconds of silence until a call to the authority fails."""
ANSWER_BYTES_MAX = 1 << 20
"""Maximum bytes of an authority's answer."""
POLL_SECONDS = 180.0
"""Seconds that an authority has to check the challenges, and then to issue."""
PERIOD_SECONDS_MAX = 2 * 86400.0
"""Minimum seconds between two certificates, unless their life is short. With a wrong clock a new certificate may
seem to be old, and Let's Encrypt issues only five in a week for equal names.
"""
WHY_CHARACTERS_MAX = 600
TOKEN = re.compile(r"[A-Za-z0-9_-]{22,256}")
"""A token (RFC 8555 section 8.3). The key authorization has 44 more characters."""


class Order(Struct):
    """A certificate to request or renew. Files are paths; `kinds` are challenges, the preferred one first."""

    file: str
    account: str
    domains: list[str]
    email: str | None
    directory: str
    kinds: list[str]
    trust: list[str]
    proxy: tuple[str, list[str]] | None


class OrderError(Exception):
    """The order failed; the text for the operator gives the reason."""


@challenges.ChallengeResponse.register
class TlsAlpnResponse(challenges.KeyAuthorizationChallengeResponse):  # type: ignore[misc]
    """The response to a challenge of RFC 8737, which the library does not know."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class TlsAlpn(challenges.KeyAuthorizationChallenge):  # type: ignore[misc]
    """A challenge of RFC 8737."""

    response_cls = TlsAlpnResponse
    typ = TlsAlpnResponse.typ

    def validation(self, account_key: JWK, **kwargs: object) -> bytes:
        """Return the digest that the certificate must have."""
        return hashlib.sha256(self.key_authorization(account_key).encode()).digest()


class NewOrder(messages.Order):  # type: ignore[misc]
    """An order that names the certificate it replaces (RFC 9773 section 5), which the library does not."""

    replaces: str | None = jose_field("replaces", omitempty=True)


class Authority(client.ClientV2):  # type: ignore[misc]
    """An authority that gets the name of the replaced certificate with each order."""

    replaced: str | None = None

    def _post(self, url: str, body: object, *args: object, **kwargs: object) -> requests.Response:
        if self.replaced is not None and isinstance(body, messages.NewOrder):
            body = NewOrder(identifiers=body.identifiers, replaces=self.replaced)
        response: requests.Response = super()._post(url, body, *args, **kwargs)
        return response


class Network(client.ClientNetwork):  # type: ignore[misc]
    """Calls to an authority: over the site's proxy and trust, and with bounded answers."""

    retry_after: float | None = None
    """Seconds that the last refusal asked to wait."""

    def _send_request(self, method: str, url: str, *args: object, **kwargs: Any) -> requests.Response:
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise OrderError(f"{url} has no https")
        # `find_proxy` alone decides on proxies, and a .netrc file has no say.
        self.session.trust_env = False
        # Otherwise requests reads the whole body of a redirect, even if it does not follow it.
        self.session.get_redirect_target = lambda _: None
        proxy = find_proxy(url)
        proxies = {} if proxy is None else dict.fromkeys(("http", "https"), proxy.full_url)
        kwargs |= {"timeout": CALL_SECONDS, "verify": write_bundle(), "proxies": proxies, "stream": True}
        kwargs["headers"] = {"User-Agent": f"edgeproxy/{edgeproxy.__version__}", **kwargs.get("headers", {})}
        response: requests.Response = self.session.request(method, url, *args, **kwargs)
        content = response.raw.read(ANSWER_BYTES_MAX + 1, decode_content=True)
        if len(content) > ANSWER_BYTES_MAX:
            raise OrderError(f"an answer of {url} has more than {ANSWER_BYTES_MAX >> 20} MiB")
        response._content, response.encoding = content, "utf-8"
        response.close()
        if 300 <= response.status_code < 400:
            raise OrderError(f"{url} redirects, which the edge does not follow")
        if not response.ok:
            wait = client.ClientV2.retry_after(response, 0) - _in_seconds(0)
            self.retry_after = max(0.0, wait.total_seconds()) or None
        return response


def run(order: Order) -> float:
    """Renew the certificate if that is due. Return the Unix time of the next renewal. Raises OrderError."""
    file, now, network = Path(order.file), time.time(), Network(alg=ES256)
    try:
        set_trust([Path(trusted) for trusted in order.trust])
        if order.proxy is not None:
            set_proxy(*order.proxy)
        key = network.key = _load_account_key(Path(order.account))
        directory = client.ClientV2.get_directory(order.directory, network)
        authority = Authority(directory, network)
        due = compute_renewal(file, authority)
        if due <= now:
            _register(authority, network, order.email)
            authority.replaced = name_replaced(file) if hasattr(directory, "renewalInfo") else None
            write_whole(file, _request(authority, key, order))
            due = max(compute_renewal(file, authority), now)
        return due
    except Exception as error:
        raise OrderError(describe_error(error), network.retry_after) from error


def compute_renewal(file: Path, authority: client.ClientV2 | None = None) -> float:
    """Return the Unix time of the renewal of a certificate; 0 without one by the authority.

    It is the time that the authority suggests (RFC 9773), and at most two thirds of the life.
    """
    content = file.read_bytes()
    certificate = x509.load_pem_x509_certificate(content)
    if is_self_signed(certificate):
        return 0.0
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    due = begin + (end - begin) * 2 / 3
    if authority is not None:
        # The library draws a moment in the suggested window. Equal seeds make each call draw the same moment.
        random.seed(certificate.fingerprint(hashes.SHA256()))
        try:
            suggested, _ = authority.renewal_time(content)
        except errors.ARIError:
            suggested = None
        if suggested is not None:
            due = min(due, suggested.timestamp())
    made, now = file.stat().st_mtime, time.time()
    period = min(PERIOD_SECONDS_MAX, (end - begin) / 3)
    return max(due, made + period) if made <= now else max(due, now + period)


def name_replaced(file: Path) -> str | None:
    """Return the name of an authority's certificate (RFC 9773 section 4.1); None for one that the edge signed."""
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    if is_self_signed(certificate):
        return None
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None
    if issuer is None:
        return None
    # The bytes of a DER INTEGER, with room for its sign.
    serial = certificate.serial_number.to_bytes(certificate.serial_number.bit_length() // 8 + 1)
    return f"{encode_b64jose(issuer)}.{encode_b64jose(serial)}"


def _in_seconds(seconds: float) -> datetime:
    """Return the moment in this many seconds, as the library expects it: local time without a zone."""
    return datetime.now() + timedelta(seconds=seconds)  # noqa: DTZ005


def _load_account_key(file: Path) -> JWKEC:
    """Load the key of the account, or create it. The authority knows the account by it."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        content = dump_key(ec.generate_private_key(ec.SECP256R1()))
        write_whole(file, content)
    try:
        return JWKEC(key=load_pem_private_key(content, None))
    except (TypeError, ValueError) as error:
        raise OrderError(f"{file} has no key of an account: {error}") from error


def _register(authority: client.ClientV2, network: Network, email: str | None) -> None:
    """Create the account, or find it."""
    if authority.external_account_required():
        raise OrderError("the authority requires an external account binding, which the edge does not have")
    registration = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        authority.new_account(registration)
    except errors.ConflictError as error:
        network.account = messages.RegistrationResource(uri=error.location, body=messages.Registration())


def _request(authority: Authority, key: JWKEC, order: Order) -> bytes:
    """Order a certificate. Return it as PEM: its key, itself and its chain."""
    private = dump_key(ec.generate_private_key(ec.SECP256R1()))
    csr = crypto_util.make_csr(private, domains=order.domains)
    try:
        ordered = authority.new_order(csr)
    except (messages.Error, errors.ConflictError) as error:
        # The authority may know that certificate as replaced already, or as one of another account.
        if authority.replaced is None or getattr(error, "code", None) == "rateLimited":
            raise
        authority.replaced = None
        ordered = authority.new_order(csr)
    pending = [
        (authorization.body.identifier.value, _select_challenge(authorization, order.kinds))
        for authorization in ordered.authorizations
        if authorization.body.status == messages.STATUS_PENDING
    ]
    with _answered(key, pending, Path(order.file).parent):
        for _, body in pending:
            authority.answer_challenge(body, body.chall.response(key))
        ordered = authority.poll_authorizations(ordered, _in_seconds(POLL_SECONDS))
    ordered = authority.finalize_order(ordered, _in_seconds(POLL_SECONDS))
    content = private + str(ordered.fullchain_pem).encode()
    _check(content, Path(order.file), order.domains)
    return content


def _check(content: bytes, file: Path, domains: Sequence[str]) -> None:
    """Raise an error unless an issued certificate can be used for the domains."""
    # `read_certificate` reads files, and `file` must not change before its new content is known to be good.
    trial = file.with_suffix(".trial")
    try:
        write_whole(trial, content)
        missing = set(domains) - {name.lower() for name in read_certificate(trial, trial).names}
    finally:
        trial.unlink(missing_ok=True)
    if missing:
        raise OrderError(f"the certificate lacks {', '.join(sorted(missing))}")


def _select_challenge(authorization: messages.AuthorizationResource, kinds: Sequence[str]) -> messages.ChallengeBody:
    """Return the first challenge of these kinds that the authority offers. Raises OrderError also for a bad token."""
    offered = {getattr(challenge.chall, "typ", None): challenge for challenge in authorization.body.challenges}
    for kind in kinds:
        if kind in offered:
            if not TOKEN.fullmatch(offered[kind].chall.encode("token")):
                raise OrderError("a token of the authority has less than 22 characters or more than 256")
            return offered[kind]
    raise OrderError(f"the authority offers none of {', '.join(kinds)} for {authorization.body.identifier.value}")


@contextmanager
def _answered(key: JWKEC, pending: Sequence[tuple[str, messages.ChallengeBody]], folder: Path) -> Iterator[None]:
    """Have the workers answer these challenges during a block."""
    tokens: dict[str, str] = {}
    files: dict[str, str] = {}
    try:
        for name, body in pending:
            if isinstance(body.chall, TlsAlpn):
                file = folder / f"challenge-{name}.pem"
                extension = x509.UnrecognizedExtension(
                    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"), b"\x04\x20" + body.chall.validation(key)
                )
                write_whole(file, create_self_signed([name], extension))
                files[name] = str(file)
            else:
                tokens[body.chall.encode("token")] = body.chall.validation(key)
        if tokens or files:
            say({"tokens": tokens, "certificates": files})
            if not sys.stdin.readline():
                raise OrderError("the supervisor is gone")
        yield
    finally:
        for path in files.values():
            Path(path).unlink(missing_ok=True)


def describe_error(error: BaseException) -> str:
    """Describe an error to the operator, with the authority's own words."""
    if isinstance(error, errors.ValidationError):
        whys = [
            f"{failed_authzr.body.identifier.value}: {challenge.error.detail or challenge.error.typ}"
            for failed_authzr in error.failed_authzrs
            for challenge in failed_authzr.body.challenges
            if challenge.error is not None
        ]
        return f"the authority's check failed: {'; '.join(whys)}"[:WHY_CHARACTERS_MAX]
    if isinstance(error, errors.TimeoutError):
        return f"the authority was not done within {POLL_SECONDS:.0f} s"
    if isinstance(error, messages.Error):
        return f"the authority refused: {error.typ}: {error.detail}"[:WHY_CHARACTERS_MAX]
    if isinstance(error, requests.RequestException):
        way = "" if error.request is None else describe_way(str(error.request.url))
        return f"the authority cannot be asked{way}: {error}"[:WHY_CHARACTERS_MAX]
    return (str(error) or repr(error))[:WHY_CHARACTERS_MAX]


def say(what: dict[str, object]) -> None:
    """Write a line for the supervisor."""
    sys.stdout.buffer.write(orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the process."""
    os.umask(0o077)
    order = json.decode(sys.stdin.readline(), type=Order)
    try:
        say({"renew_at": run(order)})
    except OrderError as error:
        say({"why": error.args[0], "retry_after": error.args[1] if len(error.args) > 1 else None})


if __name__ == "__main__":
    main()
