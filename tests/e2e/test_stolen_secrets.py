"""The powers and limits of a thief with one secret: rows of docs/operations/security.md that no other test covers."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.directory import hub_push
from edgeproxy.config.edge.load import load_customers
from edgeproxy.hub.calls import Argument
from edgeproxy.hub.functions import LIBRARY, build_library
from edgeproxy.hub.redis import HOSTS_KEY, Link, ResponseError
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from edgeproxy.wire.directory_versions import LOG, NEWS, parts_key
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, REGIONAL, SERVICE, Collector, sha256
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import until
from tests.support.hub_rights import (
    documented,
    documented_for_directory,
    documented_for_loader,
    documented_for_push,
)
from tests.support.visitor import Visitor

needs_redis = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

# ---- users of the hub

OTHER_CODE = build_library({"own": b"return 1"}).text
COMMANDS: dict[tuple[Argument, ...], set[str]] = {
    ("SET", "rl:x", "1", "EX", 1): {"edge"},
    ("GETRANGE", "rl:x", 0, -1): {"edge"},
    ("HSET", "rl:x", "field", "1"): set(),
    ("HGETALL", "rl:x"): set(),
    ("ZADD", "rl:x", 1, "member"): set(),
    ("RPUSH", "rl:x", "1"): set(),
    ("SETRANGE", "rl:x", 1 << 28, "1"): set(),
    ("DEL", "rl:x"): set(),
    ("EXPIRE", "rl:x", 1): set(),
    ("FCALL", LIBRARY.functions["heartbeat"], 1, HOSTS_KEY, 1, 10): {"edge"},
    ("FCALL", LIBRARY.functions["stage"], 1, parts_key("0"), 1, 60, "forged"): {"push"},
    ("LRANGE", LOG, 0, -1): {"edge"},
    ("LINDEX", LOG, -1): {"edge", "push"},
    ("RPUSH", LOG, "forged"): {"push"},
    ("UNLINK", LOG): {"push"},
    ("DEL", LOG): set(),
    ("PUBLISH", NEWS, ""): {"push"},
    ("EVAL", "return 1", 0): set(),
    ("FUNCTION", "LOAD", "REPLACE", OTHER_CODE): {"loader"},
    ("GET", "of another application"): set(),
    ("SET", "of another application", "1"): set(),
    ("KEYS", "*"): set(),
    ("SCAN", 0): set(),
    ("RANDOMKEY",): set(),
    ("FLUSHALL",): set(),
    ("FLUSHDB",): set(),
    ("SWAPDB", 0, 1): set(),
    ("FUNCTION", "FLUSH"): set(),
    ("FUNCTION", "DELETE", LIBRARY.name): set(),
    ("FUNCTION", "DUMP"): set(),
    ("SCRIPT", "FLUSH"): set(),
    ("SCRIPT", "LOAD", "return 1"): set(),
    ("MIGRATE", "127.0.0.1", 1, LOG, 0, 1): set(),
    ("REPLICAOF", "127.0.0.1", 1): set(),
    ("CONFIG", "GET", "*"): set(),
    ("CONFIG", "SET", "dir", "/"): set(),
    ("ACL", "LIST"): set(),
    ("CLIENT", "LIST"): set(),
    ("MONITOR",): set(),
    ("SHUTDOWN", "NOSAVE"): set(),
}
"""Which commands each user of the hub may send."""
DENIED = re.compile(r"(?i)no permissions|NOPERM|can't run this command|ACL failure")


async def create_users(operator: Link, url: str) -> dict[str, Link]:
    """Create the documented users with exactly their rights. Returns a connection of each."""
    rights = {
        "edge": [*documented(), *documented_for_directory()],
        "loader": documented_for_loader(),
        "push": documented_for_push(),
    }
    for user, granted in rights.items():
        await operator.ask("ACL", "SETUSER", user, "reset", "on", ">s3cret", *granted)
    return {user: await Link.open(url.replace("://", f"://{user}:s3cret@")) for user in rights}


@needs_redis
def test_each_user_of_the_hub_has_only_its_own_rights(redis: Redis) -> None:
    async def play() -> None:
        operator = await Link.open(redis.url)
        await operator.load_functions()
        users = await create_users(operator, redis.url)
        for command, allowed in COMMANDS.items():
            for user, link in users.items():
                (answer,) = await asyncio.gather(link.ask(*command), return_exceptions=True)
                is_denied = isinstance(answer, ResponseError) and DENIED.search(str(answer)) is not None
                assert is_denied or not isinstance(answer, Exception), (user, command, answer)
                assert is_denied == (user not in allowed), (user, command, answer)
        for link in (operator, *users.values()):
            await link.close()

    asyncio.run(play())


@needs_redis
def test_the_signing_key_brings_no_customer_by_an_edges_user(redis: Redis, tmp_path: Path) -> None:
    directory_signatures.create_key_file(tmp_path / "directory.key")
    signer = Signer.load(tmp_path / "directory.key")

    def bring(user: str) -> None:
        url = redis.url.replace("://", f"://{user}:s3cret@")
        file = tmp_path / f"{user}.yaml"
        file.write_text(yaml.safe_dump({"hub": url, "tiers": {"t": {}}, "customers": {"eve": {"tier": "t"}}}))
        hub_push.run_push(load_customers(file, {}), hub_push.PushOptions(force=True, signer=signer))

    async def ask_operator(*command: Argument) -> Any:
        operator = await Link.open(redis.url)
        try:
            if not command:
                await operator.load_functions()
                for link in (await create_users(operator, redis.url)).values():
                    await link.close()
                return None
            return await operator.ask(*command)
        finally:
            await operator.close()

    asyncio.run(ask_operator())
    with pytest.raises(Exception, match=DENIED):
        bring("edge")
    assert asyncio.run(ask_operator("EXISTS", LOG)) == 0
    bring("push")
    assert asyncio.run(ask_operator("LLEN", LOG)) == 1, "with both, whoever they name is served"


# ---- secrets of the collector

ROLES = {"beacon-token": {"name": "beacon", "role": "beacon"}}
SCRAPE, ADMIN_OF_EDGE, SMTP, WEBHOOK, STAMP = (
    f"{what}-secret" for what in ("scrape", "admin", "smtp", "hook", "stamp")
)
OPENS: dict[str, set[str]] = {
    EDGE: {
        "POST /v1/batches",
        "POST /v1/traffic",
        "POST /v1/limit-usage",
        "GET /v1/directory",
        "GET /v1/directory/parts/{token}/{place}",
        "GET /v1/directory/quotas",
        "GET /v1/regions/best",
    },
    "beacon-token": {"POST /v1/regions/reports", "GET /v1/regions/best"},
    SERVICE: {
        "POST /v1/events",
        "GET /v1/customers/{customer}/holdings/{meter}",
        "PUT /v1/customers/{customer}/holdings/{meter}/{item}",
        "DELETE /v1/customers/{customer}/holdings/{meter}/{item}",
    },
    SCRAPE: {"GET /metrics"},
    "key": set(),
    SMTP: set(),
    WEBHOOK: set(),
    STAMP: set(),
    "cookie": set(),
}
"""The non-public endpoints of the collector that each secret opens. `key` and `cookie` are created below."""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder = tmp_path_factory.mktemp("stolen")
    mail = {"server": f"{HOST}:1", "sender": "edge@example.com", "tls": "none"}
    made = Collector(
        folder / "collector",
        f"sqlite:///{folder}/ledger.db",
        metrics={"tokens": [{"name": "prometheus", "sha256": sha256(SCRAPE)}]},
        meters={"requests": {"count": "requests"}, "workflows": {"count": "holdings"}},
        pages={"mail": mail},
    )
    made.settings["tokens"] += [{**bounds, "sha256": sha256(token)} for token, bounds in ROLES.items()]
    with closing(made):
        yield made.start()


@pytest.fixture(scope="module")
def cookie(collector: Collector) -> str:
    """Return the cookie of an operator who signed in by the printed link."""
    link = until(lambda: re.search(r"http://\S+/sign-in/link\?token=\S+", collector.output), "the link is printed")
    with Visitor(f"http://{HOST}:{collector.port}") as operator:
        operator.get(link[0])
        operator.send("/sign-in/link")
        (cookie,) = [one for one in operator.client.cookies.jar if one.name == "edgeproxy-session"]
    return f"{cookie.name}={cookie.value}"


def make_key(collector: Collector, name: str, **fields: str) -> str:
    """Create a customer and a key; return its secret."""
    assert collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
    secret: str = collector.send("POST", f"/v1/customers/{name}/keys", {}, **fields).json()["secret"]
    return secret


def test_each_secret_opens_only_its_own_paths_at_the_collector(collector: Collector, cookie: str) -> None:
    key = make_key(collector, "holder")
    held = {"key": {"Authorization": f"Bearer {key}"}, "cookie": {"Cookie": cookie}}
    described = collector.get("/v1/openapi.json", token=None).json()["paths"]
    guarded = [
        (f"{method.upper()} {path}", method.upper(), re.sub(r"{\w+}", "1", path))
        for path, operations in described.items()
        for method, operation in operations.items()
        if "security" in operation or path == "/metrics"
    ]
    for secret, opens in OPENS.items():
        fields = held.get(secret, {"Authorization": f"Bearer {secret}"})
        answers = {name: ask(collector.port, path, method=method, fields=fields) for name, method, path in guarded}
        assert {name for name, answer in answers.items() if answer.status not in (401, 403)} == opens, secret


SHA256 = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def test_backup_lists_customers_and_opens_nothing(collector: Collector, cookie: str, tmp_path: Path) -> None:
    key = make_key(collector, "in-backup", Idempotency_Key="by-which-it-is-encrypted")
    assert collector.send("PUT", "/v1/customers/in-backup/contacts", {"emails": ["jo@example.com"]}).status == 200
    token = collector.send("POST", "/v1/tokens", {"name": "in-backup", "role": "read"}).json()["secret"]
    copy = tmp_path / "backup.db"
    done = CliRunner().invoke(cli.app, ["backup", "-c", str(collector.file), str(copy)])
    assert done.exit_code == 0, done.output
    content = copy.read_bytes()
    assert b"in-backup" in content, "who there is, what was used and the addresses of contacts"
    assert b"jo@example.com" in content
    for secret in (key, token, cookie.partition("=")[2], ADMIN, EDGE, SCRAPE):
        assert secret.encode() not in content
    digests = {digest.decode() for digest in SHA256.findall(content)}
    assert {sha256(key), sha256(token), sha256(cookie.partition("=")[2])} <= digests
    for digest in digests:
        assert collector.get("/v1/customers", token=digest).status == 401
        assert ask(collector.port, "/console", fields={"Cookie": f"edgeproxy-session={digest}"}).status == 303
    (one,) = collector.get("/v1/customers/in-backup/keys").json()["keys"]
    assert collector.send("POST", "/v1/keys/leaked", {"keys": [sha256(key)]}, token=None).status == 202
    assert collector.get(f"/v1/keys/{one['id']}").json()["state"] == "active", "a hash reports no key"


# ---- secrets of an edge


def test_the_stamp_secret_forges_nothing_through_an_edge(start_edge: StartEdge) -> None:
    edge = start_edge(**people(acme="basic"), stamp_secret=STAMP)

    def sign(*parts: str) -> str:
        return hmac.new(STAMP.encode(), ".".join(parts).encode(), hashlib.sha256).hexdigest()

    moment, request_id = "1790000000", "0" * 32
    forged = {
        "X-Request-Id": request_id,
        "X-Customer-Id": "victim",
        "X-Customer-Tier": "pro",
        "X-Edge-Signature": f"t={moment},v1={sign(moment, request_id, 'victim', 'pro', 'eu-test')}",
    }
    answer = edge.ask("/?echo=1", key=key_of("acme"), fields=forged)
    received = {name.lower(): value for name, value in answer.json()["fields"]}
    assert received["x-customer-id"] == "acme"
    match = re.fullmatch(r"t=(\d+),v1=(\w+)", received["x-edge-signature"])
    assert match
    # The stamp to the service is signed for the caller. A thief of the secret can sign too, for services within reach.
    assert match[2] == sign(match[1], received["x-request-id"], "acme", "basic", "eu-test")
    assert "victim" not in answer.body.decode()


@needs_redis
def test_owner_of_an_edges_host_has_the_rights_of_that_edge_only(
    start_edge: StartEdge, redis: Redis, tmp_path: Path
) -> None:
    """A thief uses all secrets in the files of an edge."""
    folder = tmp_path / "owned"
    directory_signatures.create_key_file(tmp_path / "directory.key")
    signer = Signer.load(tmp_path / "directory.key")

    async def prepare() -> None:
        operator = await Link.open(redis.url)
        await operator.load_functions()
        for link in (await create_users(operator, redis.url)).values():
            await link.close()
        await operator.close()

    asyncio.run(prepare())
    url = f"redis://{{}}:s3cret@{HOST}:{redis.port}/0"
    with closing(
        Collector(
            folder,
            f"sqlite:///{folder}/ledger.db",
            directory={"key": str(tmp_path / "directory.key"), "hub": url.format("push")},
        )
    ) as collector:
        collector.start()
        key = make_key(collector, "dora")
        other = Chain()
        assert collector.post(other.next()).status == 200
        edge = start_edge(
            region="eu-bound",
            hub=url.format("edge"),
            directory={"from": "hub", "trust": signer.public_key},
            usage={"collector": f"http://{HOST}:{collector.port}", "token": REGIONAL},
        )
        until(lambda: edge.ask(key=key).status == 200, "the edge knows the key")
        stolen = yaml.safe_load(edge.file.read_text())
        files = [file.read_bytes() for file in Path(stolen["state"]).rglob("*") if file.is_file()]
        assert sha256(key).encode() in b"".join(files) or hashlib.sha256(key.encode()).digest() in b"".join(files)
        assert not any(key.encode() in content for content in files), "keys are nowhere, but in the requests themselves"
        assert edge.ask(key=sha256(key)).status == 401, "a hash is no key"

        token = stolen["usage"]["token"]
        mine = Chain(region="eu-bound")
        assert collector.post(mine.next(("dora", "requests", "all", 1000)), token=token).status == 200, "as that edge"
        assert collector.post(other.next(), token=token).status == 403, "as no other"
        assert collector.get("/v1/usage", token=token).status == 403
        assert collector.get("/v1/customers/dora/keys", token=token).status == 403

        async def mint() -> None:
            link = await Link.open(stolen["hub"])
            before = await link.ask("LRANGE", LOG, 0, -1)
            assert before
            for command in (("RPUSH", LOG, before[-1]), ("DEL", LOG), ("PUBLISH", NEWS, "")):
                with pytest.raises(ResponseError, match=DENIED):
                    await link.ask(*command)
            await link.close()

        asyncio.run(mint())
        assert signer.public_key in str(stolen), "the trusted key is public"
        secret = (tmp_path / "directory.key").read_bytes().strip()
        assert not any(secret in content for content in (*files, edge.file.read_bytes()))
        edge.end()
