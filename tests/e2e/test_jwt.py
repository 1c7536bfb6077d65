"""Tokens of an issuer: real edges, an issuer's keys over HTTP, and texts that must not pass as tokens."""

import base64
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgeproxy.collector.directory import hub_push
from edgeproxy.config.edge.load import load_customers
from loadtest.testbed.customers import TIERS, UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.fork_server import PAUSES
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import until

ISS, AUD = "https://id.example.com", "edge"
RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


SUBJECTS = {
    "auth0|5f7c8ec7c33c6c004bbafe82": "sub--auth0_7c5f7c8ec7c33c6c004bbafe82",
    "abc@clients": "sub--abc_40clients",
    "user@example.com": "sub--user_40example_2ecom",
    "sub--abc_40clients": "sub--sub--abc_5f40clients",
}
"""The issuers' names of their users, and a user who imitates another; with their customer names."""


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


class IssuerKeys:
    """An issuer's JWK Set over HTTP."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"keys": issuer.keys}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def issuer() -> Iterator[IssuerKeys]:
    issuer_keys = IssuerKeys(jwk(RSA, "r1"), jwk(EC, "e1"), {"kty": "oct", "k": "c2VjcmV0", "kid": "o1"})
    yield issuer_keys
    issuer_keys.end()


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r1", **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": ISS, "aud": AUD, "exp": now + 300, "sub": "acme", "tier": "free", "jti": "t1"} | claims
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode({k: v for k, v in said.items() if v is not None}, key, algorithm, headers)


def settings(issuer: IssuerKeys) -> dict[str, Any]:
    ours = {"issuer": ISS, "jwks": issuer.url, "audiences": [AUD], "tier": "tier"}
    return {
        "issuers": {"id": ours},
        "routes": [
            {"path": "/jwt", "upstream": "api", "auth": "jwt"},
            {"path": "/both", "upstream": "api", "auth": ["key", "jwt"]},
            {"path": "/write", "upstream": "api", "auth": "jwt", "scopes": ["write"]},
            {"path": "/*", "upstream": "api"},
        ],
    }


def asks(edge: Edge, credential: str, path: str = "/jwt") -> int:
    return edge.ask(path, fields={"Authorization": f"Bearer {credential}"}).status


def test_only_a_genuine_token_names_its_customer(start_edge: StartEdge, issuer: IssuerKeys) -> None:
    edge = start_edge(**settings(issuer))
    before: set[int] = set()

    def served() -> bool:
        before.add(asks(edge, token()))
        return 200 in before

    until(served, "the issuer's keys are known")
    assert before <= {503, 200}, "a genuine token is not refused before the first key fetch"
    for path, credential, status in (
        ("/both", token(), 200),
        ("/both", key_of(UNLIMITED), 200),
        ("/jwt", key_of(UNLIMITED), 401),
        ("/other", token(), 401),
        ("/jwt", token(EC, "ES256", "e1"), 200),
        ("/jwt", token(kid=None), 200),
        ("/write", token(), 403),
        ("/write", token(scope="read write"), 200),
        ("/jwt", token(sub=UNLIMITED, tier=None), 200),
        ("/jwt", token(tier="nonesuch"), 403),
        ("/jwt", token(tier=None), 403),
        *(("/jwt", token(sub=subject), 200) for subject in SUBJECTS),
    ):
        assert asks(edge, credential, path) == status, (path, status)
    usage = edge.usage()
    assert usage["acme"] >= 5, "customers need not exist beforehand"
    assert {name: usage[name] for name in SUBJECTS.values()} == dict.fromkeys(SUBJECTS.values(), 1)
    now = int(time.time())
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body, signature = token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"r1"}').rstrip(b"=").decode()
    hmac = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"r1"}').rstrip(b"=").decode()
    digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{hmac}.{body}".encode(), public)
    forged = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    flipped = ("A" if signature[9] != "A" else "B").join((signature[:9], signature[10:]))
    for what, odd in {
        "alg none": f"{none}.{body}.",
        "alg none, signed": f"{none}.{body}.{signature}",
        "HMAC with the public key": f"{hmac}.{body}.{forged}",
        "HMAC with a key of the set": token("secret", "HS256", "o1"),
        "another key": token(OTHER),
        "an unknown key": token(OTHER, kid="x"),
        "another algorithm": token(RSA, "RS512"),
        "altered": f"{head}.{body}.{flipped}",
        "expired": token(exp=now - 60),
        "not yet": token(nbf=now + 600),
        "no end": token(exp=None),
        "another audience": token(aud="other"),
        "another issuer": token(iss="https://evil.example.com"),
        "no name": token(sub=""),
        "a name of nobody": token(sub="\ud800"),
        "a subject of nobody": token(customer="acme", sub="\ud800"),
        "an end beyond all numbers": token(exp=10**400),
        "no customer": token(sub=None),
        "garbage": "eyJx.y.z",
    }.items():
        assert asks(edge, odd) == 401, what
    private = {**jwt.algorithms.RSAAlgorithm.to_jwk(OTHER, as_dict=True), "kid": "private"}
    hostile = [{**jwk(EC, "e2"), "alg": "none"}, {**jwk(EC, "e3"), "kid": []}, private]
    issuer.keys += [*hostile, jwk(OTHER, "x")]
    until(
        lambda: asks(edge, token(OTHER, kid="x")) == 200, "a new key is fetched before the minute is over", seconds=40
    )
    assert asks(edge, token(OTHER, kid="private")) == 401, "a private key in the set is everybody's"
    assert asks(edge, key_of(UNLIMITED), "/both") == 200, "whatever an issuer publishes, keys of the edge count"
    # The keys stay valid without the issuer, also for an edge that starts then.
    issuer.end()
    edge.end()
    edge.start()
    assert asks(edge, token()) == 200


def test_a_key_without_kid_is_tried_and_its_replacement_is_fetched(
    start_edge: StartEdge, issuer: IssuerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PAUSES, "edgeproxy.edge.supervisor.issuers:HURRY_SECONDS=0.5")
    unnamed, another, elliptic = (
        {name: value for name, value in jwk(key, "").items() if name != "kid"} for key in (RSA, OTHER, EC)
    )
    issuer.keys = [unnamed, elliptic]
    edge = start_edge(**settings(issuer))
    until(lambda: asks(edge, token()) == 200, "the issuer's keys are known")
    assert asks(edge, token(kid=None)) == 200
    assert asks(edge, token(EC, "ES256", "2027-01")) == 200, "each key without a kid is tried"
    assert asks(edge, token(OTHER)) == 401
    issuer.keys = [another]
    until(lambda: asks(edge, token(OTHER)) == 200, "a replaced key is fetched before the minute is over", seconds=40)
    issuer.keys = [{**unnamed, "kid": "a"}]
    until(lambda: asks(edge, token(kid="a")) == 200, "the key has a kid now", seconds=40)
    assert asks(edge, token(kid="b")) == 401, "a key with another kid is never tried"


def test_a_token_counts_until_its_end_and_no_longer(start_edge: StartEdge, issuer: IssuerKeys) -> None:
    edge = start_edge(**settings(issuer))
    until(lambda: asks(edge, token()) == 200, "the issuer's keys are known")
    end = int(time.time()) - 25  # Clocks may differ by 30 s.
    short, late = token(exp=end), token(exp=end - 6)
    assert asks(edge, short) == 200
    assert time.time() < end + 30, "this took too long to tell"
    assert asks(edge, late) == 401
    until(lambda: asks(edge, short) == 401, "an expired token is refused after 30 s of tolerance", seconds=20)
    assert time.time() >= end + 30


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
def test_pausing_a_customer_and_revoking_a_token_work_as_for_keys(
    start_edge: StartEdge, issuer: IssuerKeys, tmp_path: Path
) -> None:
    redis, file = Redis(tmp_path), tmp_path / "people.yaml"

    def pushes(**customers: Any) -> None:
        file.write_text(json.dumps({"hub": redis.url, "tiers": TIERS, "customers": customers}))
        hub_push.run_push(load_customers(file, {}), hub_push.PushOptions(force=True))

    def each(credential: str, status: int, what: str) -> None:
        until(lambda: {asks(edge, credential) for _ in range(6)} == {status}, what)

    try:
        pushes(other={"tier": "free"})
        edge = start_edge(hub=redis.url, directory={"from": "hub"}, **settings(issuer))
        each(token(), 200, "a customer who is nowhere has the tier of the token")
        pushes(other={"tier": "free"}, acme={"tier": "own", "revoked": ["t1"]})
        each(token(), 401, "the token is revoked")
        each(token(jti="t2"), 200, "and no other")
        pushes(other={"tier": "free"}, acme={"tier": "own", "paused": {"why": "unpaid", "status": 402}})
        each(token(jti="t2"), 402, "the customer is paused")
        pushes(other={"tier": "free"}, acme={"tier": "own"})
        each(token(), 200, "and served again")
    finally:
        redis.kill()


def test_limit_per_claim_counts_each_end_user_separately(start_edge: StartEdge, issuer: IssuerKeys) -> None:
    """The tier names the claim that identifies end users. A key has no claims, so all its users count as one."""
    config = settings(issuer)
    config["routes"][1]["limits"] = [{"rate": "2/h", "per": {"claim": "member"}}]
    edge = start_edge(**config)
    until(lambda: asks(edge, token()) == 200, "the issuer's keys are known")
    names = (*("ada", "bob") * 2, "ada", 7, 7, "7", None, True, {"ada": 1})
    statuses = [asks(edge, token(member=name, jti=str(n)), "/both") for n, name in enumerate(names)]
    assert statuses == [200, 200, 200, 200, 429, 200, 200, 429, 200, 200, 429]
    assert [asks(edge, key_of(UNLIMITED), "/both") for _ in range(3)] == [200, 200, 429], "another customer"
