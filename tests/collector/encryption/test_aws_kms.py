"""AWS KMS as key service, against a server that speaks as it does: keys that are away, wrong, disabled or another's."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from edgeproxy.collector.encryption.key_services import KeyServiceError
from edgeproxy.collector.encryption.keyring import (
    OPTION,
    Keyring,
    KeysUnavailableError,
    open_key_service,
    refresh_keyring,
)
from edgeproxy.collector.encryption.migration import rotate_keys
from edgeproxy.config.collector.encryption import Encryption
from loadtest.testbed.ports import HOST
from tests.collector.encryption.test_rows import create, expected, read, run
from tests.support.collector_fixtures import only_sqlite

pytest.importorskip("botocore", reason="there is no botocore on this machine")
from edgeproxy.collector.encryption import aws_kms
from tests.support.kms import PROGRAM, REGION, Kms


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kms]:
    if PROGRAM is None:
        pytest.skip("there is no moto on this machine")
    with closing(Kms(tmp_path_factory.mktemp("kms") / "log")) as server:
        yield server


@pytest.fixture
def kms(server: Kms, monkeypatch: pytest.MonkeyPatch) -> Kms:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server


def settings(arn: str, *old: str) -> Encryption:
    return Encryption.model_validate({"kms": f"aws-kms:{arn}", "old": [{"kms": f"aws-kms:{one}"} for one in old]})


async def nothing(opened: Database, keyring: Keyring | None) -> None: ...


@only_sqlite("database")
def test_only_the_wrapping_kms_key_decrypts_the_columns(database: str, kms: Kms) -> None:
    first, second = kms.create_key(), kms.create_key()

    async def write(opened: Database, _: Keyring | None) -> None:
        async with opened.writing() as connection:
            await create(connection, "acme")

    async def read_again(opened: Database, _: Keyring | None) -> None:
        async with opened.reading() as connection:
            assert await read(connection, "acme") == expected("acme")

    async def rotate(opened: Database, keyring: Keyring | None) -> None:
        assert keyring is not None
        await rotate_keys(opened, keyring)

    run(database, settings(first), write)
    run(database, settings(first), read_again)
    with pytest.raises(UnusableDatabaseError, match=second):
        run(database, settings(second), nothing)
    run(database, settings(second, first), rotate)
    run(database, settings(second), read_again)


@only_sqlite("database")
def test_a_key_that_does_not_exist_or_has_no_credentials_is_an_error_of_the_start(
    database: str, kms: Kms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = f"arn:aws:kms:{REGION}:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    with pytest.raises(UnusableDatabaseError, match=f"aws-kms {lost} does not exist there"):
        run(database, settings(lost), nothing)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UnusableDatabaseError, match="there are no credentials of AWS"):
        run(database, settings(kms.create_key()), nothing)


class Refusing(BaseHTTPRequestHandler):
    """Answers each call with the error that its server has, and counts it; never with `hang`."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1  # type: ignore[attr-defined]
        if (code := self.server.code) == "hang":  # type: ignore[attr-defined]
            self.server.ended.wait(30.0)  # type: ignore[attr-defined]
            return
        is_answer = isinstance(code, bytes)
        body = code if is_answer else json.dumps({"__type": code, "message": "as the test says"}).encode()
        self.send_response(200 if is_answer else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def refusing(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer((HOST, 0), Refusing)
    server.calls, server.ended = 0, threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://{HOST}:{server.server_port}")
    yield server
    server.ended.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("code", "reason", "calls"),
    [
        ("AccessDeniedException", "denies access, grant kms:Encrypt and kms:Decrypt on it", 1),
        ("DisabledException", "is disabled", 1),
        ("KMSInvalidStateException", "is pending deletion", 1),
        ("ThrottlingException", "throttles requests", 2),
        ("SomethingNew", "answers SomethingNew: as the test says", 1),
    ],
)
def test_kms_error_states_a_remedy_and_only_throttling_is_retried(
    refusing: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, code: str, reason: str, calls: int
) -> None:
    monkeypatch.setattr(aws_kms, "CLIENT", aws_kms.CLIENT.merge(aws_kms.Config(retries={"total_max_attempts": 2})))
    refusing.code = code  # type: ignore[attr-defined]
    service = open_key_service(settings(f"arn:aws:kms:{REGION}:123456789012:alias/keys"))
    with pytest.raises(KeyServiceError, match=f"alias/keys {reason}"):
        asyncio.run(service.unwrap(b"wrapped"))
    assert refusing.calls == calls  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>sign in to this network</html>",
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"Plaintext":null,"CiphertextBlob":null}',
        b'{"Plaintext":7,"CiphertextBlob":7}',
        b'{"Plaintext":"***","CiphertextBlob":"***"}',
        b'{"Plaintext":"abc","CiphertextBlob":"abc"}',
        b'{"Plaintext":"\xff"}',
    ],
    ids=lambda answer: repr(answer[:20]),
)
def test_answer_that_is_none_of_kms_is_a_failure_of_the_service(refusing: ThreadingHTTPServer, answer: bytes) -> None:
    """The collector then goes on with the keys in memory, and stores no key that KMS could not unwrap."""
    refusing.code = answer  # type: ignore[attr-defined]
    service = open_key_service(settings(f"arn:aws:kms:{REGION}:123456789012:alias/keys"))
    for call in (service.wrap, service.unwrap):
        with pytest.raises(KeyServiceError, match="does not answer as AWS KMS does"):
            asyncio.run(call(b"key"))


def test_hanging_or_unreachable_kms_raises_an_error(
    refusing: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = aws_kms.Config(read_timeout=0.2, retries={"total_max_attempts": 1})
    monkeypatch.setattr(aws_kms, "CLIENT", aws_kms.CLIENT.merge(once))
    refusing.code = "hang"  # type: ignore[attr-defined]
    arn = f"arn:aws:kms:{REGION}:123456789012:alias/keys"
    with pytest.raises(KeyServiceError, match="cannot be asked: Read timeout"):
        asyncio.run(open_key_service(settings(arn)).wrap(b"key"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://{HOST}:1")
    with pytest.raises(KeyServiceError, match="cannot be asked: Could not connect"):
        asyncio.run(open_key_service(settings(arn)).wrap(b"key"))


@only_sqlite("database")
def test_kms_key_lost_in_a_transaction_stays_in_memory_and_leaves_no_plain_text(database: str, kms: Kms) -> None:
    key, alias = kms.create_key(), "alias/in-the-midst"
    kms.client.create_alias(AliasName=alias, TargetKeyId=key)
    arn = f"{key.rpartition(':')[0]}:{alias}"

    async def do(opened: Database, _: Keyring | None) -> None:
        now = 1000.0
        keyring = Keyring([open_key_service(settings(arn))], 60.0, lambda: now)
        await refresh_keyring(opened, keyring)
        opened.set_option(OPTION, keyring)
        async with opened.writing() as connection:
            await create(connection, "acme")
            kms.client.delete_alias(AliasName=alias)
            with pytest.raises(KeysUnavailableError, match="does not exist there"):
                await refresh_keyring(opened, keyring)
            await create(connection, "bolt")  # The transaction goes on with the keys that it has.
        async with opened.reading() as connection:
            assert await read(connection, "acme") == expected("acme")
        with pytest.raises(KeysUnavailableError):  # noqa: PT012 - of the last statement, in one transaction.
            async with opened.writing() as connection:
                await create(connection, "carol")
                now += 60.0
                await create(connection, "dave")
        kms.client.create_alias(AliasName=alias, TargetKeyId=key)
        await refresh_keyring(opened, keyring)
        async with opened.reading() as connection:
            assert await read(connection, "bolt") == expected("bolt")
            assert await customers.find_row(connection, "carol") is None, "a transaction is whole or not at all"

    run(database, settings(arn), do)
