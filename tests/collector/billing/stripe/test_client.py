"""The one file that uses Stripe's package: the meaning of answers, and the secrecy of keys."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from edgeproxy.base.log import redact
from edgeproxy.collector.billing.stripe.client import (
    CallOutcome,
    Stripe,
    StripeCallError,
    StripeConfigurationError,
    StripeObject,
    read_secret_key,
    read_webhook_secrets,
)
from edgeproxy.config.collector.billing import Stripe as Settings
from tests.support.receivers import Receiver
from tests.support.stripe_sandbox import Sandbox

SECRET = "sk_test_abcdefSECRET"
KEY = {"STRIPE_SECRET_KEY": SECRET}


def ask(url: str, name: str, /, *ids: str, **params: Any) -> Any:
    async def work() -> Any:
        client = Stripe(Settings(base=url), KEY)
        try:
            return await client.call(name, *ids, **params)
        finally:
            await client.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "error_before"}, CallOutcome.FAILED),
        ({"kind": "error_after"}, CallOutcome.FAILED),
        ({"kind": "answer_lost"}, CallOutcome.LOST),
        ({"kind": "answer_cut"}, CallOutcome.LOST),
        ({"kind": "call_lost"}, CallOutcome.LOST),
        ({"kind": "rate_limited", "reason": "global-rate"}, CallOutcome.BUSY),
        ({"kind": "refused", "status": 401}, CallOutcome.DENIED),
        ({"kind": "refused", "status": 403}, CallOutcome.DENIED),
        ({"kind": "refused", "status": 409}, CallOutcome.BUSY),
        ({"kind": "refused", "status": 400}, CallOutcome.REFUSED),
    ],
)
def test_stripe_error_states_its_outcome_and_hides_the_key(
    stripe_sandbox: Sandbox, caplog: pytest.LogCaptureFixture, fault: Mapping[str, Any], outcome: CallOutcome
) -> None:
    with faults(stripe_sandbox, fault), caplog.at_level(logging.DEBUG), pytest.raises(StripeCallError) as failure:
        ask(stripe_sandbox.url, "v1.customers.create", key=f"{outcome}{fault}"[:200], name="a")
    assert failure.value.outcome is outcome
    assert failure.value.reason == fault.get("reason")
    assert SECRET not in caplog.text + repr(failure.value) + str(failure.value)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "error_after"}, CallOutcome.FAILED),
        ({"kind": "answer_lost"}, CallOutcome.LOST),
        ({"kind": "answer_cut"}, CallOutcome.LOST),
        ({"kind": "rate_limited", "reason": "endpoint-rate"}, CallOutcome.BUSY),
        ({"kind": "refused", "status": 401}, CallOutcome.DENIED),
        ({"kind": "refused", "status": 404}, CallOutcome.REFUSED),
    ],
)
async def test_meter_event_answer_has_the_outcome_of_other_calls(
    stripe_sandbox: Sandbox, fault: Mapping[str, Any], outcome: CallOutcome
) -> None:
    client = Stripe(Settings(base=stripe_sandbox.url), KEY)
    fields = {"event_name": "x", "payload[stripe_customer_id]": "cus_1", "payload[value]": "1"}
    try:
        with faults(stripe_sandbox, fault), pytest.raises(StripeCallError) as failure:
            await client.send_event(f"event {outcome} {fault}"[:200], {**fields, "identifier": f"{outcome} {fault}"})
        assert (failure.value.outcome, failure.value.reason) == (outcome, fault.get("reason"))
        assert SECRET not in repr(failure.value)
        other = {**fields, "identifier": f"then {outcome} {fault}"}
        assert await client.send_event(f"another {fault}", other) is not None
        assert await client.send_event(f"another {fault}", other) is None, "a time that was is not told again"
        with pytest.raises(StripeCallError) as reused:
            await client.send_event(f"another {fault}", {**fields, "identifier": "else"})
        assert reused.value.outcome is CallOutcome.REUSED
        with pytest.raises(StripeCallError) as again:
            await client.send_event(f"third {fault}", {**fields, "identifier": f"then {outcome} {fault}"})
        assert "already exists with identifier" in again.value.message
    finally:
        await client.close()


async def test_rotated_key_makes_all_later_calls() -> None:
    with Receiver() as receiver:
        client = Stripe(Settings(base=f"http://127.0.0.1:{receiver.port}"), KEY)
        try:
            for key in (SECRET, "sk_test_second"):
                client.use_key(key)
                for call in (client.call("v1.customers.create"), client.send_event(key, {})):
                    with pytest.raises(StripeCallError):  # The receiver answers 204.
                        await call
        finally:
            await client.close()
    assert [hook.fields["authorization"] for hook in receiver.got] == [
        *[f"Bearer {SECRET}"] * 2,
        *["Bearer sk_test_second"] * 2,
    ]


@contextmanager
def faults(sandbox: Sandbox, *some: Mapping[str, Any]) -> Iterator[None]:
    sandbox.faults(*some)
    try:
        yield
    finally:
        sandbox.faults()


def test_a_missing_object_is_refused_and_a_reused_key_is_reported(stripe_sandbox: Sandbox) -> None:
    with pytest.raises(StripeCallError) as failure:
        ask(stripe_sandbox.url, "v1.invoices.retrieve", "in_nowhere")
    assert (failure.value.outcome, failure.value.code) == (CallOutcome.REFUSED, "resource_missing")
    assert ask(stripe_sandbox.url, "v1.customers.create", key="once", name="a")["name"] == "a"
    with pytest.raises(StripeCallError) as failure:
        ask(stripe_sandbox.url, "v1.customers.create", key="once", name="b")
    assert failure.value.outcome is CallOutcome.REUSED


@pytest.mark.parametrize(
    ("status", "body"), [(200, "[]"), (200, '"text"'), (200, "null"), (200, "<html>"), (502, '{"error": "no"}')]
)
async def test_an_answer_or_an_error_that_is_no_object_is_a_failure(status: int, body: str) -> None:
    first = {"object": "list", "data": [], "next_page_url": "/v2/core/events?page=2"}
    bodies = {"/v2/core/events": orjson.dumps(first).decode()}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().removesuffix("?limit=100")
        code, text = (200, bodies[path]) if path in bodies else (status, body)
        head = f"HTTP/1.1 {code} -\r\nConnection: close\r\nContent-Length: {len(text)}"
        writer.write(f"{head}\r\n\r\n{text}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        client = Stripe(Settings(base=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), KEY)
        for request, outcome in (
            (client.call("v1.balance.retrieve"), CallOutcome.LOST),
            (client.list_all("v1.customers.list"), CallOutcome.LOST),
            (client.list_all("v2.core.events.list"), CallOutcome.LOST),
            (
                client.send_event("key", {"identifier": "one"}),
                CallOutcome.LOST if status == 200 else CallOutcome.FAILED,
            ),
        ):
            with pytest.raises(StripeCallError) as failure:
                await request
            assert failure.value.outcome is outcome
        await client.close()


async def test_list_answer_without_its_objects_is_an_error() -> None:
    class Cut(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: object) -> StripeObject:
            return {"object": "list", "has_more": False}

    client = Cut(Settings(), KEY)
    with pytest.raises(StripeCallError, match="it is no list") as failure:
        await client.list_all("v1.customers.list")
    assert failure.value.outcome is CallOutcome.LOST
    await client.close()


def test_the_hook_into_the_package_returns_plain_objects(stripe_sandbox: Sandbox) -> None:
    metadata = {"our_id": "one"}
    customer = ask(stripe_sandbox.url, "v1.customers.create", key="plain", name="a", metadata=metadata)
    assert isinstance(customer, dict), "an object of the package is none"
    assert isinstance(customer["metadata"], dict)
    assert customer["metadata"] == metadata


def test_a_refused_connection_is_lost() -> None:
    with pytest.raises(StripeCallError) as failure:
        ask("http://127.0.0.1:9", "v1.customers.list")
    assert failure.value.outcome is CallOutcome.LOST


async def test_stripe_log_lines_redact_keys(caplog: pytest.LogCaptureFixture) -> None:
    await Stripe(Settings(), KEY).close()
    with caplog.at_level(logging.INFO, "stripe"):
        logging.getLogger("stripe").info("sent %s and %s", SECRET, "whsec_0123abc")
    assert "SECRET" not in caplog.text
    assert "sent sk_… and whsec_…" in caplog.text
    assert redact("Invalid API Key provided: rk_live_***1234") == "Invalid API Key provided: rk_…"


@pytest.mark.parametrize(
    ("settings", "key", "why"),
    [
        ({}, "", "has no key"),
        ({}, "pk_test_abcdef", "no secret or restricted key"),
        ({}, "sk_test_abc def", "has white space"),
        ({}, "sk_live_abcdef", "which moves money"),
        ({"live": True}, "rk_test_abcdef", "has a test key"),
        ({"key": "nowhere/stripe"}, "", "cannot be read"),
    ],
)
def test_a_key_that_is_not_meant_is_not_used(settings: dict[str, Any], key: str, why: str) -> None:
    with pytest.raises(StripeConfigurationError, match=why) as raised:
        read_secret_key(Settings(**settings), {"STRIPE_SECRET_KEY": key})
    assert key == "" or key not in str(raised.value)


def test_keys_are_in_files_or_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("rk_live_abcdef\n")
    (tmp_path / "hooks").write_text("whsec_one\nwhsec_two\n")
    files = Settings(key=tmp_path / "key", webhook_secrets=tmp_path / "hooks", live=True)
    assert read_secret_key(files, KEY) == "rk_live_abcdef"
    assert read_webhook_secrets(files, {}) == ("whsec_one", "whsec_two")
    assert read_webhook_secrets(Settings(), {"STRIPE_WEBHOOK_SECRETS": "whsec_a whsec_b"}) == ("whsec_a", "whsec_b")
    with pytest.raises(StripeConfigurationError):
        read_webhook_secrets(Settings(), {"STRIPE_WEBHOOK_SECRETS": "sk_test_abcdef"})
