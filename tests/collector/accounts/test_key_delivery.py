"""Replacements of due keys are created once, encrypted and delivered by webhook. No customer loses a working key."""

import asyncio
import base64
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from joserfc import jwe
from joserfc.jwk import OKPKey, RSAKey

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers, key_delivery, keys, public_keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.key_rows import compute_sha256, get_row
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CreateKeyRequest, UpdateKeyRequest
from edgeproxy.collector.accounts.rows import KeyRow
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.collector.database.webhook_tables import webhook_deliveries
from edgeproxy.collector.jobs.key_rotation import KeyRotationJob
from edgeproxy.collector.jobs.webhooks import WebhookJobs
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.webhook_endpoints import endpoints
from edgeproxy.collector.webhook_endpoints.models import CreateWebhookEndpointRequest
from edgeproxy.config.collector.rotation import Rotation
from edgeproxy.config.collector.settings import CollectorSettings, Token
from edgeproxy.config.collector.webhooks import Webhooks
from edgeproxy.config.tiers import Tier
from edgeproxy.wire.batch import FIRST
from loadtest.testbed.ports import HOST
from tests.support.receivers import Receiver

CALLER = Caller("test")
DAY = 86400
WEBHOOKS = Webhooks.model_validate({"encryption": base64.b64encode(b"k" * 32).decode(), "networks": ["127.0.0.0/8"]})
ROTATION = Rotation.model_validate({"every": "90d", "grace": "7d", "deliver": "webhook", "remind": []})
OWN, OTHER = OKPKey.generate_key("X25519"), RSAKey.generate_key(2048)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def build_settings() -> CollectorSettings:
    token = Token.model_validate({"sha256": "a" * 64, "role": "edge"})
    more = {"tokens": (token,), "tiers": {"basic": Tier()}, "rotation": ROTATION, "webhooks": WEBHOOKS}
    return CollectorSettings.model_validate({"sha256": FIRST, **more})


class Stage:
    """The customer acme with a key that is 91 days old, and the jobs for rotation and webhooks."""

    def __init__(self, database: Database, receiver: Receiver) -> None:
        self.database, self.receiver, self.now = database, receiver, time.time()
        self.path = f"/{time.time_ns()}"
        self.webhooks = WebhookJobs(database, lambda: WEBHOOKS, Metrics())
        self.job = KeyRotationJob(database, Metrics(), build_settings)

    async def begin(self, public_key: OKPKey | RSAKey | None = OWN, types: list[str] | None = None) -> str:
        """Create the customer, its key and an endpoint. Return the key's id."""
        new = CreateCustomerRequest.model_validate({"name": "acme", "tier": "basic"})
        async with self.database.writing() as connection:
            await customers.create_customer(connection, CALLER, new, build_settings())
            key = await keys.create_key(connection, CALLER, "acme", CreateKeyRequest.model_validate({"name": "server"}))
            created = round((self.now - 91 * DAY) * 1000)
            await connection.execute(sa.update(keys_table).values(created_at=created))
        if types != []:
            await self.add_endpoint(types or ["key.delivered", "key.rotated"])
        if public_key is not None:
            await self.register(public_key)
        return key["id"]

    async def add_endpoint(self, types: list[str] | None) -> None:
        url = f"http://{HOST}:{self.receiver.port}{self.path}"
        new = CreateWebhookEndpointRequest.model_validate({"url": url, "types": types})
        async with self.database.writing() as connection:
            await endpoints.create_endpoint(connection, CALLER, "acme", new, WEBHOOKS)

    async def register(self, key: OKPKey | RSAKey | None) -> None:
        stored = None if key is None else public_keys.parse_public_key(key.as_dict(private=False))
        async with self.database.writing() as connection:
            await key_delivery.put_public_key(connection, CALLER, "acme", stored)

    async def step(self, after: float = 0.0) -> None:
        """Run the rotation job as if `after` seconds had passed."""
        await self.job.step(self.now + after)

    async def send(self, after: float = 1.0) -> None:
        await self.webhooks.sender.step(time.time() + after)
        await self.webhooks.sender.wait_idle()

    async def row(self, key: str) -> KeyRow:
        async with self.database.reading() as connection:
            return await get_row(connection, key)

    async def live(self) -> int:
        """The number of keys that are not revoked."""
        statement = sa.select(sa.func.count()).select_from(keys_table).where(keys_table.c.revoked_at.is_(None))
        async with self.database.reading() as connection:
            return int((await connection.execute(statement)).scalar_one())

    async def state(self) -> Any:
        async with self.database.reading() as connection:
            return await key_delivery.describe_rotation(connection, "acme", ROTATION)

    async def alerts(self) -> list[str]:
        async with self.database.reading() as connection:
            return list((await connection.execute(sa.select(alerts.c.kind).order_by(alerts.c.id))).scalars())

    def messages(self, kind: str = "key.delivered") -> list[Any]:
        return [one["data"] for one in (hook.json() for hook in self.receiver.on(self.path)) if one["type"] == kind]

    async def change(self, act: Callable[[Any], Awaitable[object]]) -> None:
        async with self.database.writing() as connection:
            await act(connection)


@asynccontextmanager
async def staged(url: str, receiver: Receiver) -> AsyncIterator[Stage]:
    database = await Database.connect(url)
    try:
        yield Stage(database, receiver)
    finally:
        await database.close()


def decrypt(message: Any, key: OKPKey | RSAKey = OWN) -> Any:
    return orjson.loads(jwe.decrypt_compact(message["jwe"], key, registry=public_keys.REGISTRY).plaintext or b"")


@pytest.mark.both_databases
async def test_due_key_is_replaced_after_its_owner_received_the_encrypted_secret(
    database: str, receiver: Receiver
) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin()
        await asyncio.gather(stage.step(), KeyRotationJob(stage.database, Metrics(), build_settings).step(stage.now))
        before = await stage.row(old)
        assert before.next_key is not None
        assert (before.expires_at, before.successor, await stage.live()) == (None, None, 2), "two collectors, one key"
        assert [(key["state"], key["delivery"]) for key in (await stage.state())["keys"]] == [("sent", "due")]
        await stage.step(60)
        assert (await stage.row(old)).expires_at is None, "the key has not been collected yet"
        await stage.send()
        (message,) = stage.messages()
        secret = decrypt(message)
        new = await stage.row(before.next_key)
        assert secret == {"id": new.id, "secret": secret["secret"], "replaces": old}
        assert new.sha256 == compute_sha256(secret["secret"])
        assert secret["secret"] not in str(message)
        await stage.step(120)
        await stage.step(180)
        after = await stage.row(old)
        assert after.successor == new.id
        assert after.next_key is None
        assert after.expires_at is not None
        assert abs(after.expires_at / 1000 - time.time() - 7 * DAY) < 60
        await stage.send(2)
        assert [message["id"] for message in stage.messages("key.rotated")] == [old]
        shown = (await stage.state())["keys"]
        assert [(key["id"], key["state"], key["next_key"]) for key in shown] == [(old, "rotating", new.id)]


def test_database_does_not_contain_the_secret(tmp_path: Any, receiver: Receiver) -> None:
    from loadtest.testbed.tables_ready import put_tables

    url = put_tables(f"sqlite:///{tmp_path}/data/ledger.db")

    async def run() -> str:
        async with staged(url, receiver) as stage:
            await stage.begin()
            await stage.step()
            await stage.send()
            return str(decrypt(stage.messages()[0])["secret"])

    secret = asyncio.run(run()).encode()
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    assert b"key.delivered" in stored
    assert secret[8:] not in stored


@pytest.mark.both_databases
async def test_failing_receiver_keeps_the_old_key_and_one_replacement(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin()
        for day in range(4):
            receiver.statuses[stage.path] = [500] * 20
            await stage.step(day * 2 * DAY)
            dead = sa.update(webhook_deliveries).values(state="dead")
            await stage.change(lambda connection, dead=dead: connection.execute(dead))  # type: ignore[misc]
            assert await stage.live() == 2
            row = await stage.row(old)
            assert (row.expires_at, row.successor) == (None, None)
            if row.next_key is not None:  # Set its creation to the simulated time.
                made = round((stage.now + day * 2 * DAY) * 1000) - 1
                age = sa.update(keys_table).where(keys_table.c.id == row.next_key).values(created_at=made)
                await stage.change(lambda connection, age=age: connection.execute(age))  # type: ignore[misc]
            await stage.step((day * 2 + 1.5) * DAY)  # The job withdraws it and creates the next one.
        assert "key_rotation_due" in await stage.alerts()
        await stage.step(8 * DAY)
        assert (await stage.alerts()).count("key_rotation_overdue") == 1, "at the end of the grace"


@pytest.mark.parametrize(
    ("public_key", "types"),
    [(None, ["key.delivered"]), (OWN, []), (OWN, ["key.rotated"])],
    ids=["no-public-key", "no-endpoint", "an-endpoint-of-other-types"],
)
async def test_customer_without_delivery_gets_no_new_key_and_keeps_the_old(
    database: str, receiver: Receiver, public_key: OKPKey | None, types: list[str]
) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin(public_key, types)
        if not types:
            await stage.add_endpoint(None)  # An endpoint for all types gets no secrets: it may be a log.
        await stage.step()
        await stage.step(8 * DAY)
        assert await stage.live() == 1
        assert (await stage.row(old)).expires_at is None
        assert await stage.alerts() == ["key_rotation_due", "key_rotation_overdue"]
        state = await stage.state()
        assert (state["deliver"], state["every"], state["grace"]) == ("portal", None, "7day")


async def rotate(stage: Stage, old: str) -> None:
    await stage.change(lambda connection: keys.rotate_key(connection, CALLER, old, DAY))


async def revoke(stage: Stage, old: str) -> None:
    await stage.change(lambda connection: keys.revoke_key(connection, CALLER, old))


async def narrow(stage: Stage, old: str) -> None:
    change = UpdateKeyRequest.model_validate({"limits": [{"name": "own", "rate": "1/s"}]})
    await stage.change(lambda connection: keys.update_key(connection, CALLER, old, change, own=True))


async def change_public_key(stage: Stage, _: str) -> None:
    await stage.register(OTHER)


async def remove_public_key(stage: Stage, _: str) -> None:
    await stage.register(None)


@pytest.mark.parametrize("act", [rotate, revoke, narrow, change_public_key, remove_public_key])
async def test_undelivered_key_is_withdrawn_after_changes_of_terms_or_owner(
    database: str, receiver: Receiver, act: Callable[[Stage, str], Awaitable[None]]
) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin()
        await stage.step()
        sent = (await stage.row(old)).next_key
        assert sent is not None
        await act(stage, old)
        row = await stage.row(sent)
        assert row.revoked_for == "withdrawn"
        assert (await stage.row(old)).next_key is None
        await stage.step(60)
        following = (await stage.row(old)).next_key
        assert (following is not None) == (act in (narrow, change_public_key))
        if following is not None:
            await stage.send()
            *_, message = stage.messages()
            assert decrypt(message, OTHER if act is change_public_key else OWN)["id"] == following
            assert (await stage.row(following)).limits == (await stage.row(old)).limits


async def test_revocation_or_use_of_a_new_key_ends_its_delivery(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin()
        await stage.step()
        first = (await stage.row(old)).next_key
        assert first is not None
        await revoke(stage, first)
        await stage.step(60)
        second = (await stage.row(old)).next_key
        assert second not in (None, first)
        # The receiver decrypted the key but answered 500. Its use proves the delivery.
        used = sa.update(keys_table).where(keys_table.c.id == second).values(last_used_on=round(stage.now))
        await stage.change(lambda connection: connection.execute(used))
        await stage.step(120)
        assert (await stage.row(old)).successor == second


async def test_repeated_changes_of_the_public_key_create_few_keys(
    database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_delivery, "WITHDRAWN_MAX", 3)

    async with staged(database, receiver) as stage:
        old = await stage.begin()
        for number in range(10):
            await stage.step(60 * number)
            await stage.register(OTHER if number % 2 == 0 else OWN)
        async with stage.database.reading() as connection:
            statement = sa.select(sa.func.count()).select_from(keys_table)
            assert (await connection.execute(statement)).scalar_one() == 1 + 3
        assert (await stage.row(old)).expires_at is None


async def test_unreadable_key_does_not_stop_the_delivery_of_others(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin()
        async with stage.database.writing() as connection:
            spoilt = await keys.create_key(connection, CALLER, "acme", CreateKeyRequest())
            created = round((stage.now - 92 * DAY) * 1000)
            change = {"created_at": created, "limits": "no JSON", "id": "0" + spoilt["id"][1:]}
            await connection.execute(sa.update(keys_table).where(keys_table.c.id == spoilt["id"]).values(**change))
        await key_delivery.deliver_due_keys(stage.database, ROTATION.every, stage.now)
        assert (await stage.row(old)).next_key is not None


KILLED = """
import asyncio, os, signal, sys
from edgeproxy.collector.accounts import key_delivery
from edgeproxy.collector.database.database import Database

async def main():
    database = await Database.connect(sys.argv[1])
    async with database.writing() as connection:
        await key_delivery.send_replacement(connection, sys.argv[2])
        if sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.both_databases
@pytest.mark.parametrize("moment", ["before", "after"])
def test_kill_leaves_no_key_or_one_that_is_delivered(database: str, receiver: Receiver, moment: str) -> None:
    async def prepare() -> str:
        async with staged(database, receiver) as stage:
            return await stage.begin()

    async def look(old: str) -> None:
        async with staged(database, receiver) as stage:
            assert await stage.live() == (1 if moment == "before" else 2)
            await stage.step()
            await stage.send()
            hooks = [hook.json() for hook in receiver.got]
            new = (await stage.row(old)).next_key
            sent = [
                hook["data"] for hook in hooks if hook["type"] == "key.delivered" and hook["data"]["replaces"] == old
            ]
            assert [decrypt(one)["id"] for one in sent] == [new]
            assert await stage.live() == 2

    old = asyncio.run(prepare())
    killed = subprocess.run([sys.executable, "-c", KILLED, database, old, moment], check=False, timeout=60)
    assert killed.returncode == -9
    asyncio.run(look(old))


async def test_unreachable_customer_keeps_its_key_until_an_operator_rotates_it(
    database: str, receiver: Receiver
) -> None:
    """The customer has no e-mail address, no contact who could open the portal, no public key and no endpoint."""

    async with staged(database, receiver) as stage:
        old = await stage.begin(None, [])
        for day in (0, 8, 38, 400):
            await stage.step(day * DAY)
            row = await stage.row(old)
            assert (row.expires_at, row.revoked_at, row.next_key, await stage.live()) == (None, None, None, 1)
        raised = await stage.alerts()
        assert raised[:2] == ["key_rotation_due", "key_rotation_overdue"], "operators get them"
        assert set(raised) == {"key_rotation_due", "key_rotation_overdue"}
        await rotate(stage, old)
        assert (await stage.row(old)).expires_at is not None
        await stage.step(30 * DAY)
        assert await stage.alerts() == raised, "the new key is not due yet"


@pytest.mark.both_databases
async def test_end_of_a_key_is_announced_once_at_each_time(database: str, receiver: Receiver) -> None:
    async with staged(database, receiver) as stage:
        old = await stage.begin(None, [])
        async with stage.database.writing() as connection:
            short = await keys.create_key(connection, CALLER, "acme", CreateKeyRequest())
            await keys.rotate_key(connection, CALLER, short["id"], 3600)
            await keys.rotate_key(connection, CALLER, old, 7 * DAY)
            ends = format_timestamp(round((stage.now + 7.3 * DAY) * 1000))
            new = CreateKeyRequest.model_validate({"expires_at": ends})
            own = await keys.create_key(connection, CALLER, "acme", new)
        seen = []
        for day in (0, 3.9, 4.1, 5, 6.1, 6.5, 7.1):
            await stage.step(day * DAY)
            seen.append((await stage.alerts()).count("key_ends_soon"))
        # Alerts come three days and one day before each end. The hour of overlap has none.
        assert seen == [0, 0, 1, 2, 3, 4, 4]
        later = UpdateKeyRequest.model_validate({"expires_at": format_timestamp(round((stage.now + 20 * DAY) * 1000))})
        await stage.change(lambda connection: keys.update_key(connection, CALLER, own["id"], later))
        await stage.step(17.5 * DAY)
        assert (await stage.alerts()).count("key_ends_soon") == 5, "the later end is announced, too"
