"""Operators who sign in at a real OpenID provider: identity, permissions, and required second factors."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgeproxy.collector.api import code_flow, issuer_keys
from edgeproxy.collector.api.auth import DeniedError
from edgeproxy.collector.api.code_flow import Client, CodeFlow, is_for
from edgeproxy.collector.api.issuer_keys import IssuerKeys
from edgeproxy.collector.api.operators import operator
from edgeproxy.config.collector.operators import Operators, is_factor_recent
from loadtest.testbed.collector import ADMIN, Collector, sha256
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.waiting import until
from tests.support.oidc import AUDIENCE, THERE, Provider

ROLES = {"claim": "groups", "admin": ["ops"], "support": ["helpdesk"]}


class Stage:
    """A collector that believes a provider."""

    def __init__(self, provider: Provider, collector: Collector) -> None:
        self.provider = provider
        self.collector = collector

    def ask(self, token: str, path: str = "/v1/edges", method: str = "GET", body: bytes | None = None) -> Answer:
        fields = {"Authorization": f"Bearer {token}"}
        return ask(self.collector.port, path, method=method, fields=fields, body=body)

    def make(self, token: str, name: str) -> Answer:
        return self.ask(token, "/v1/customers", "POST", orjson.dumps({"name": name, "tier": "basic"}))

    def delete(self, token: str, name: str) -> Answer:
        return self.ask(token, f"/v1/customers/{name}", "DELETE")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if not THERE:
        pytest.skip("oidc-provider is not on this machine")
    folder = tmp_path_factory.mktemp("operators")
    tokens = [
        {"name": "admin", "sha256": sha256(ADMIN), "role": "admin"},
        {"name": "cleaner", "sha256": sha256("cleaner"), "role": "admin", "sensitive": True},
    ]
    with closing(Provider(folder)) as provider:
        provider.start()
        operators = {
            "issuer": provider.issuer,
            "audience": AUDIENCE,
            "roles": ROLES,
            "second_factor": {"amr": ["mfa"], "acr": ["urn:strong"]},
        }
        database = f"sqlite:///{folder}/ledger.db"
        with closing(Collector(folder, database, tokens=tokens, operators=operators)) as collector:
            collector.start()
            yield Stage(provider, collector)


def test_identity_provider_groups_set_the_role_of_a_person(stage: Stage) -> None:
    ops, helpdesk, stranger = (stage.provider.token(who) for who in ("ops", "helpdesk", "stranger"))
    assert stage.ask(ops).status == stage.ask(helpdesk).status == 200
    assert stage.make(ops, "made-by-ops").status == 201
    assert stage.make(helpdesk, "made-by-helpdesk").status == 403
    paused = orjson.dumps({"paused": {"why": "they asked for it"}})
    assert stage.ask(helpdesk, "/v1/customers/made-by-ops", "PATCH", paused).status == 200
    assert stage.ask(helpdesk, "/v1/audit").status == 403
    assert stage.ask(stranger).status == 403
    entries = stage.ask(ops, "/v1/audit?limit=1000").json()["entries"]
    by = {(entry["action"], entry["actor"]) for entry in entries}
    assert {("customer.create", "operator:ops"), ("customer.change", "operator:helpdesk")} <= by


def test_sensitive_request_needs_a_recent_second_factor_unless_configured_off(stage: Stage) -> None:
    assert stage.make(stage.provider.token("ops"), "to-be-deleted").status == 201
    for who in ("ops-by-password", "ops-an-hour-ago", "ops-tomorrow", "ops-without-time"):
        refused = stage.delete(stage.provider.token(who), "to-be-deleted")
        assert refused.status == 401, who
        assert refused["www-authenticate"].startswith('Bearer error="insufficient_user_authentication"')
        assert "max_age=600" in refused["www-authenticate"]
        assert stage.ask(stage.provider.token(who)).status == 200, "all else they may"
    machine = stage.delete(ADMIN, "to-be-deleted")
    assert (machine.status, "sensitive" in machine.json()["detail"]) == (403, True)
    assert stage.ask(ADMIN, "/v1/customers/to-be-deleted").json()["deleting_since"] is None
    for who in ("cleaner", stage.provider.token("ops-by-acr"), stage.provider.token("ops")):
        assert stage.delete(who, "to-be-deleted").status == 202
    assert stage.collector.metric("collector_denied_total") >= 4


def test_issuer_keys_are_cached_during_an_outage_and_new_keys_fetched(stage: Stage) -> None:
    before = stage.provider.token("ops")
    assert stage.ask(before).status == 200
    stage.provider.end()
    assert stage.ask(before).status == 200, "cached keys need no request to the issuer"
    stage.provider.start("second")
    after = stage.provider.token("ops")
    until(lambda: stage.ask(after).status == 200, "the new key is known")
    assert stage.ask(before).status == 401, "the old one is the issuer's no more"


# ---- accepted tokens

SETTINGS = Operators.model_validate(
    {"issuer": "https://id.test", "audience": "edgeproxy", "roles": ROLES, "algorithms": ["RS256", "ES256"]}
)
KEY = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
PUBLIC = jwt.PyJWK({**jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k"})
PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def claims(**others: Any) -> dict[str, Any]:
    said = {"iss": "https://id.test", "aud": "edgeproxy", "sub": "ann", "exp": time.time() + 3600, "groups": ["ops"]}
    return {name: value for name, value in {**said, **others}.items() if value is not None}


def signed(key: Any = KEY, algorithm: str = "RS256", kid: str = "k", **others: Any) -> str:
    return jwt.encode(claims(**others), key, algorithm, headers={"kid": kid})


def by_hand(algorithm: str, **others: Any) -> str:
    """A token that PyJWT itself would not make: signed by HMAC with the public key, or not at all."""
    head, body = (
        jwt.utils.base64url_encode(orjson.dumps(part)) for part in ({"alg": algorithm, "kid": "k"}, claims(**others))
    )
    sum_ = (
        b""
        if algorithm == "none"
        else jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head + b"." + body, PEM)
    )
    return b".".join([head, body, jwt.utils.base64url_encode(sum_)]).decode()


def test_a_token_of_the_issuer_is_believed() -> None:
    who = operator(signed(amr=["mfa"], auth_time=5), [PUBLIC], SETTINGS)
    assert (who.label, who.roles, who.is_person, who.factor_at) == ("operator:ann", {"admin"}, True, 5)


@pytest.mark.parametrize("at", [math.nan, math.inf, 1e300, -1, True, "5", 4e9])
def test_a_sign_in_at_no_time_or_in_the_future_is_no_second_factor(at: object) -> None:
    assert operator(signed(amr=["mfa"], auth_time=at), [PUBLIC], SETTINGS).factor_at is None
    assert not is_factor_recent(at if isinstance(at, float) else None, time.time()), "nor in a session that has it"


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (signed(OTHER), 401),
        (signed(kid="another"), 401),
        (signed(algorithm="RS512"), 401),
        (by_hand("HS256"), 401),
        (by_hand("none"), 401),
        (signed(exp=time.time() - 60), 401),
        (signed(exp=None), 401),
        (signed(nbf=time.time() + 86400), 401),
        (signed(aud="another"), 401),
        (signed(aud=None), 401),
        (signed(iss="https://id.test/"), 401),
        (signed(sub=None), 401),
        (signed(sub="a\0"), 401),
        (signed(sub="a" * 256), 401),
        ("eyJ.eyJ.x", 401),
        ("ey" + "a" * 20_000 + "..", 401),
        (signed(groups=["others"]), 403),
        (signed(groups=None), 403),
        (signed(groups={"ops": True}), 403),
    ],
)
def test_invalid_operator_token_is_denied(token: str, status: int) -> None:
    with pytest.raises(DeniedError) as denied:
        operator(token, [PUBLIC], SETTINGS)
    assert denied.value.status == status


def test_a_key_without_kid_is_tried_for_a_token_that_names_one() -> None:
    unnamed, another = (
        jwt.PyJWK(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)) for key in (KEY, OTHER)
    )
    assert operator(signed(), [another, unnamed], SETTINGS).label == "operator:ann"
    for keys in ([another], [unnamed, jwt.PyJWK({**unnamed._jwk_data, "kid": "k", "n": another._jwk_data["n"]})], []):
        with pytest.raises(DeniedError):
            operator(signed(), keys, SETTINGS)


def test_keys_outlive_an_empty_key_set_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    listed = [{**jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k"}]

    async def fetch_metadata(issuer: str) -> dict[str, str]:
        return {"jwks_uri": f"{issuer}/keys"}

    async def fetch_json(_: str) -> dict[str, object]:
        return {"keys": listed}

    monkeypatch.setattr(issuer_keys, "fetch_metadata", fetch_metadata)
    monkeypatch.setattr(issuer_keys, "fetch_json", fetch_json)
    monkeypatch.setattr(issuer_keys, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def work() -> list[int]:
        keys = IssuerKeys("https://id.test")
        counts = [len(await keys.with_key("k"))]
        listed.clear()
        for seconds in (3600, 82_800, 3600):
            now[0] += seconds
            counts.append(len(await keys.with_key("k")))
        return counts

    assert asyncio.run(work()) == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("claims", "ours"),
    [
        ({"aud": "console"}, True),
        ({"aud": ["console"]}, True),
        ({"aud": "console", "azp": "console"}, True),
        ({"aud": ["console", "other"], "azp": "console"}, True),
        ({"aud": "console", "azp": "other"}, False),
        ({"aud": ["console", "other"], "azp": "other"}, False),
        ({"aud": ["console", "other"]}, False),
        ({"aud": "console", "azp": None}, False),
        ({"aud": "console", "azp": ["console"]}, False),
    ],
)
def test_an_id_token_that_was_made_for_another_client_is_not_ours(claims: dict[str, Any], ours: bool) -> None:
    assert is_for(claims, "console") is ours


async def test_sign_ins_share_cached_issuer_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def fetched(issuer: str) -> dict[str, str]:
        asked.append(issuer)
        return {"authorization_endpoint": f"{issuer}/auth", "token_endpoint": f"{issuer}/token"}

    async def judge(_: str) -> str:
        return ""

    monkeypatch.setattr(code_flow, "fetch_metadata", fetched)

    flow = CodeFlow(Client("https://id.example.com", "console", None), judge)
    for _ in range(3):
        await flow.begin("secret", "https://edge.example.com/back", again=False)
    assert asked == ["https://id.example.com"]


@pytest.mark.parametrize(("own", "tenant"), [("?tenant=1", ["1"]), ("?", None)])
def test_a_query_of_the_issuers_own_page_stays_beside_ours(
    monkeypatch: pytest.MonkeyPatch, own: str, tenant: list[str] | None
) -> None:
    async def fetch_metadata(issuer: str) -> dict[str, str]:
        return {"authorization_endpoint": f"{issuer}/auth{own}", "token_endpoint": f"{issuer}/token{own}"}

    async def judge(_: str) -> str:
        return ""

    monkeypatch.setattr(code_flow, "fetch_metadata", fetch_metadata)
    flow = CodeFlow(Client("https://id.example.com", "console", None), judge)
    url = urlsplit(asyncio.run(flow.begin("secret", "https://edge.example.com/back", again=False)))
    query = parse_qs(url.query)
    assert (url.path, query.get("tenant"), query["response_type"]) == ("/auth", tenant, ["code"])


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_a_key_that_the_issuer_has_replaced_counts_for_a_minute_at_most(
    monkeypatch: pytest.MonkeyPatch, withdrawn: bool
) -> None:
    """The new key has the old key's name or another one. A thief still signs with the old key."""
    now, fetched = [1000.0], [0]
    listed = [{**jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k", "use": "sig"}]

    async def fetch_metadata(issuer: str) -> dict[str, str]:
        return {"jwks_uri": f"{issuer}/keys"}

    async def fetch_json(_: str) -> dict[str, object]:
        fetched[0] += 1
        return {"keys": listed}

    monkeypatch.setattr(issuer_keys, "fetch_metadata", fetch_metadata)
    monkeypatch.setattr(issuer_keys, "fetch_json", fetch_json)
    monkeypatch.setattr(issuer_keys, "time", SimpleNamespace(monotonic=lambda: now[0]))

    keys = IssuerKeys("https://id.test")
    assert operator(signed(), await keys.with_key("k"), SETTINGS).label == "operator:ann"
    other = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key(), as_dict=True)
    listed[0] = {**other, "kid": "another" if withdrawn else "k", "use": "sig"}
    now[0] += 59
    assert operator(signed(), await keys.with_key("k"), SETTINGS)
    now[0] += 1
    with pytest.raises(DeniedError):
        operator(signed(), await keys.with_key("k"), SETTINGS)
    for _ in range(100):
        await keys.with_key("k")
    assert fetched[0] == 2, "the metadata is fetched no more often"
