"""Users with passwords on a route: access, the upstream's fields, and floods of wrong passwords."""

import asyncio
import base64
import json
import threading
from pathlib import Path

import pytest

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.routing import password_verifier
from edgeproxy.edge.proxy.routing.basic_credentials import NOBODY, read_credentials
from edgeproxy.edge.proxy.routing.password_verifier import PENDING_MAX, PasswordVerifier
from tests.support.transcript import KEY, Edge, get, ok

SECRET = "$2y$04$BhcHImMsKbDAAOGc3deSe.HQ3dIENz/jf9NZ374dsBkzWKDWFdx92"
"""The hash of `secret`."""
CHALLENGE = 'Basic realm="Wiki", charset="UTF-8"'


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _flush(edge: Edge) -> None:
    log = edge.runtime.snapshot.access_log
    assert log is not None
    log.flush()


@pytest.fixture
def guarded(edge: Edge, tmp_path: Path) -> Edge:
    file = tmp_path / "users.htpasswd"
    file.write_text(f"ada:{SECRET}\n")
    rewrite = {"request": {"set": {"X-Remote-User": "{user.name}", "X-Customer": "{customer.id}"}}}
    auth = {"basic": str(file), "realm": "Wiki"}
    edge.config["routes"].append({"path": "/wiki/*", "upstream": "api", "auth": auth, "rewrite": rewrite})
    return edge


async def test_user_is_let_in_and_named(guarded: Edge, tmp_path: Path) -> None:
    guarded.config["access_log"] = {"file": str(tmp_path / "log")}
    fields = (basic("ada", "secret"), f"X-API-Key: {KEY}", "X-Remote-User: forged")
    for _ in range(2):
        received, answered = await guarded.passes(get("/wiki/a", *fields), ok())
        assert answered.status == 200
        assert received["X-Remote-User"] == "ada"
        assert not {"authorization", "x-api-key", "x-customer-id", "x-customer"} & {
            name.lower() for name, _ in received.fields
        }
    assert guarded.count("edge_auth_failures_total", "password") == 0
    log = tmp_path / "log"
    await guarded.until(lambda: _flush(guarded) or (log.exists() and log.read_text().count("\n") == 2))
    assert [json.loads(line)["user"] for line in log.read_text().splitlines()] == ["ada", "ada"]


async def test_forwarded_keys_include_the_password(guarded: Edge) -> None:
    guarded.config["upstreams"]["api"]["forward_key"] = True
    received, _ = await guarded.passes(get("/wiki/a", basic("ada", "secret")), ok())
    assert basic("ada", "secret") == f"Authorization: {received['Authorization']}"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ((), "key-missing"),
        ((f"X-API-Key: {KEY}",), "key-missing"),
        (("Authorization: Bearer abc",), "key-missing"),
        ((basic("ada", "secreT"),), "password-invalid"),
        ((basic("ada", "secret\0"),), "password-invalid"),
        ((basic("ada", "secret" + "x" * 10_000),), "password-invalid"),
        ((basic("bob", "secret"),), "password-invalid"),
        (("Authorization: Basic !",), "password-invalid"),
    ],
)
@pytest.mark.parametrize("reads_basic_keys", [False, True])
async def test_request_without_a_valid_password_is_challenged(
    guarded: Edge, fields: tuple[str, ...], code: str, reads_basic_keys: bool
) -> None:
    guarded.config["auth"] = {"basic": reads_basic_keys}
    answer = await guarded.refuses(get("/wiki/a", *fields))
    assert (answer.status, answer["WWW-Authenticate"]) == (401, CHALLENGE)
    assert json.loads(answer.body)["code"] == code
    reason = "missing" if code == "key-missing" else "password"
    assert guarded.count("edge_auth_failures_total", reason) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"ada:pass:word", (b"ada", b"pass:word")),
        (b":", NOBODY),
        (b"ada", NOBODY),
        (b"\xe4da:\xff", (b"\xe4da", b"\xff")),
        (b"a:" + b"x" * 72, (b"a", b"x" * 72)),
        (b"a:" + b"x" * 73, NOBODY),
        (b"a:b\x1f", NOBODY),
    ],
)
def test_credentials_are_read_as_the_rfc_says(value: bytes, expected: tuple[bytes, bytes]) -> None:
    assert read_credentials(b"authorization: BASIC  %b\r\n" % base64.b64encode(value)) == expected


async def test_flood_of_passwords_delays_no_other_request(guarded: Edge) -> None:
    """A check that never ends holds the only thread. The address gets its share of the queue, and others the rest."""
    checking = threading.Event()
    checked: list[bytes] = []

    def check(password: bytes, hashed: bytes) -> bool:
        checked.append(password)
        return checking.wait(30) and password == b"secret"

    await guarded.starts()
    guarded.runtime.passwords = PasswordVerifier(check)
    flood = [await guarded.client() for _ in range(PENDING_MAX)]
    for n, client in enumerate(flood):
        await client.sends(get("/wiki/a", basic("ada", f"wrong-{n}")))
    refused = [await client.gets_answer() for client in flood[PENDING_MAX // 5 :][-20:]]
    assert {answer.status for answer in refused} == {429}
    assert refused[0]["Retry-After"] == "1"
    _, answered = await guarded.passes(get("/public/x"), ok())
    assert answered.status == 200
    other = await guarded.client("127.0.0.2")
    await other.sends(get("/wiki/a", basic("ada", "secret")))
    await guarded.until(lambda: checked, "the check runs in its thread")
    assert len(checked) == 1
    for client in flood[1:]:
        client.closes()  # Their passwords are not checked.
    await guarded.until(lambda: len(guarded.runtime.passwords._queue) == 1, "only the other's password waits")
    checking.set()
    assert (await flood[0].gets_answer()).status == 401
    upstream = await guarded.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    assert (await other.gets_answer()).status == 200
    assert checked == [b"wrong-0", b"secret"]


async def test_request_that_waited_too_long_is_refused(guarded: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_verifier, "WAIT_SECONDS_MAX", 0.05)
    ended = threading.Event()
    await guarded.starts()
    guarded.runtime.passwords = PasswordVerifier(lambda *_: ended.wait(30))
    answer = await guarded.refuses(get("/wiki/a", basic("ada", "secret")))
    ended.set()
    assert (answer.status, answer["Retry-After"]) == (503, "1")


async def test_rule_counts_a_login_once(guarded: Edge) -> None:
    guarded.config["rules"] = [{"name": "logins", "path": "/wiki/*", "action": "limit", "rate": "2/h"}]
    statuses = []
    for _ in range(3):
        answer = await guarded.refuses(get("/wiki/a", basic("ada", "wrong")))
        statuses.append(answer.status)
    assert statuses == [401, 401, 429]


def test_unknown_user_takes_as_long_as_a_known_one() -> None:
    """An unknown name is always compared with one particular hash, so repeated tries reveal nothing."""
    verifier = PasswordVerifier()
    users = {b"a": b"1", b"b": b"2"}
    questions = [verifier.create_question(users, b"c", b"x") for _ in range(5)]
    assert len({(question.hashed, question.digest) for question in questions}) == 1
    assert questions[0].hashed in users.values()
    assert not questions[0].is_user
    assert (
        verifier.create_question({b"a": b"3"}, b"a", b"x").digest != verifier.create_question(users, b"a", b"x").digest
    )


async def test_verdicts_are_bounded_and_end(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    class Address:
        subject, text = b"1", "192.0.2.1"

    class Waiting:
        def __init__(self) -> None:
            self.resumed = asyncio.Event()

        def resume(self) -> None:
            self.resumed.set()

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(password_verifier, "VERDICTS_MAX", 2)
    monkeypatch.setattr("os.setpriority", refuse)  # A sandbox may forbid this call; passwords are checked nevertheless.
    verifier = PasswordVerifier(lambda password, _: password != b"2" or bool(1 / 0))
    questions = [verifier.create_question({b"a": b"h"}, b"a", b"%d" % n) for n in range(4)]
    for question in questions:
        waiter = Waiting()
        verifier.verify(question, waiter, asyncio.get_running_loop().time(), Address())
        await asyncio.wait_for(waiter.resumed.wait(), 10)
    assert [verifier.find_verdict(question.digest) for question in questions] == [None, True, False, True]
    monkeypatch.setattr(password_verifier, "monotonic", lambda: float("inf"))
    assert verifier.find_verdict(questions[3].digest) is None
    with pytest.raises(RejectedError):
        verifier.verify(questions[3], Waiting(), 0.0, Address())
