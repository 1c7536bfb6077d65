"""Shares of the attempts to send webhooks: silent receivers in any arrangement leave attempts for all others."""

import asyncio
import time
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.base.shares import Claim, Places
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.jobs.webhooks import WebhookJobs
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.webhook_endpoints import endpoints
from edgeproxy.collector.webhook_endpoints.models import CreateWebhookEndpointRequest
from edgeproxy.collector.webhooks import sender as sending
from edgeproxy.collector.webhooks.attempt_shares import Candidate, build_claim, choose_candidates, parse_receiver
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import STEP
from tests.collector.webhooks.test_sender import SETTINGS
from tests.support.receivers import Receiver

AMOUNT = 200
CALLER = Caller("test")


def create(customer: str, receiver: str, count: int = 40, *, is_retry: bool = False) -> list[tuple[Candidate, Claim]]:
    """Return candidates of a customer. Their endpoints have never answered."""
    candidates = [Candidate(f"m{number}", f"{customer}-{number}", customer, is_retry, 1) for number in range(count)]
    return [(candidate, build_claim(candidate, receiver, is_prompt=False)) for candidate in candidates]


def list_silent(kind: str) -> list[tuple[Candidate, Claim]]:
    """Return candidates with silent receivers, in one of several arrangements. The customers take turns."""
    customers_of = {
        "a customer, many hosts": [create("silent", f"host{number}:443") for number in range(20)],
        "many customers, a host": [create(f"silent{number}", "host:443") for number in range(20)],
        "many customers, many hosts": [create(f"silent{number}", f"host{number}:443") for number in range(20)],
        "retries": [create(f"silent{number}", f"host{number}:443", is_retry=True) for number in range(20)],
    }
    return [one for turn in zip(*customers_of[kind], strict=True) for one in turn]


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("a customer, many hosts", AMOUNT // 5),
        ("many customers, a host", AMOUNT // 5),
        ("many customers, many hosts", AMOUNT * 9 // 10),
        ("retries", AMOUNT // 2),
    ],
)
def test_silent_receivers_leave_attempts_to_others(kind: str, most: int) -> None:
    places = Places(AMOUNT)
    choice = choose_candidates(list_silent(kind), places)
    assert 0 < len(choice.chosen) <= most
    assert choice.exhausted
    honest = choose_candidates(create("honest", "honest:443", 5), places)
    assert len(honest.chosen) == 5


def test_prompt_endpoint_ignores_the_exhausted_share_of_its_host() -> None:
    places = Places(AMOUNT)
    choose_candidates(list_silent("many customers, a host"), places)
    candidate = Candidate("m", "e", "honest", is_retry=False, version=1)
    new, prompt = (build_claim(candidate, "host:443", is_prompt=is_prompt) for is_prompt in (False, True))
    assert places.find_exhausted(new) == "receiver host:443"
    assert places.find_exhausted(prompt) is None


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://a.example/x?y", "a.example:443"),
        ("http://A.example/x", "a.example:80"),
        ("https://[2001:db8::1]:8443/", "2001:db8::1:8443"),
    ],
)
def test_receiver_is_the_host_and_port_of_a_url(url: str, receiver: str) -> None:
    assert parse_receiver(url) == receiver


def test_message_arrives_despite_older_messages_of_silent_customers(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ATTEMPTS_MAX", 20)

    async def add(opened: Database, name: str, url: str) -> Any:
        async with opened.writing() as connection:
            new = CreateWebhookEndpointRequest.model_validate({"url": url})
            created = await endpoints.create_endpoint(connection, CALLER, name, new, SETTINGS)
            return await endpoints.get_row(connection, name, created["id"])

    async def run(silent: Receiver, honest: Receiver) -> None:
        opened = await Database.connect(database)
        jobs = WebhookJobs(opened, lambda: SETTINGS, metrics := Metrics())
        try:
            names = [*(f"silent{number}" for number in range(8)), "honest"]
            rows = [
                {"id": f"id-{name}", "name": name, "tier": "basic", "settings": '{"tier":"basic"}', "metadata": "{}"}
                for name in names
            ]
            async with opened.writing() as connection:
                about = {"created_at": 1, "version": 1}
                await connection.execute(sa.insert(customers), [row | about for row in rows])
            for name in names[:-1]:
                for number in range(3):
                    silent.held.add(f"/{name}/{number}")
                    row = await add(opened, name, f"http://{HOST}:{silent.port}/{name}/{number}")
                    for _ in range(5):
                        async with opened.writing() as connection:
                            await endpoints.send_test(connection, CALLER, row)
            row = await add(opened, "honest", f"http://{HOST}:{honest.port}/")
            async with opened.writing() as connection:
                await endpoints.send_test(connection, CALLER, row)
            now = time.time() + 1
            await jobs.sender.step(now)
            async with asyncio.timeout(10):
                while not honest.on("/"):  # noqa: ASYNC110 - another thread sets it
                    await asyncio.sleep(STEP)
            assert len(silent.got) <= 5, "a receiver has a fifth of the attempts, and one more"
            figures = metrics.exposition(True, None).decode()
            assert 'collector_scarce_amount{good="webhook_attempts"} 20.0' in figures
            assert 'collector_scarce_refused_total{good="webhook_attempts"} 1.0' in figures
        finally:
            silent.held.clear()
            await jobs.sender.wait_idle()
            await opened.close()

    with Receiver() as silent, Receiver() as honest:
        asyncio.run(run(silent, honest))
