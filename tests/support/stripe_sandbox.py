"""The Stripe sandbox as a process, and Stripe's own client for it. The client checks every answer."""

import asyncio
import functools
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar

import jsonschema_rs
import orjson
import stripe

from loadtest.testbed.http_client import Answer, answer_of, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process, kill
from loadtest.testbed.waiting import until
from stripe_sandbox.description import load_description

COMMAND = (sys.executable, "-m", "edgeproxy", "stripe-sandbox")
KEY = "sk_test_sandbox"
T = TypeVar("T")
START = 30.0
"""Seconds within which the sandbox becomes ready."""


class Api:
    """Stripe's API in a sandbox, or in Stripe's own test mode."""

    url: str
    key: str

    def run(self, work: Callable[[stripe.StripeClient], Awaitable[T]], key: str | None = None) -> T:
        """Run `work` with Stripe's own client, which does not retry, and return its result."""

        async def with_client() -> T:
            http = Checked()
            addresses: Any = {"api": self.url, "meter_events": self.url.replace("//api.", "//meter-events.")}
            try:
                return await work(
                    stripe.StripeClient(
                        key or self.key, base_addresses=addresses, http_client=http, max_network_retries=0
                    )
                )
            finally:
                await http.close_async()

        return asyncio.run(with_client())

    def call(self, method: str, path: str, body: str = "", **fields: str) -> Answer:
        """Call the API without Stripe's client; empty fields are not sent."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/x-www-form-urlencoded"}
        headers |= {name.replace("_", "-"): value for name, value in fields.items()}
        sent = {name: value for name, value in headers.items() if value}
        answer = self.ask(path, method, sent, body.encode())
        check(answer.json())
        return answer

    def ask(self, path: str, method: str, fields: Mapping[str, str], body: bytes) -> Answer:
        """Send a request over a connection of its own."""
        raise NotImplementedError


class TestMode(Api):
    """Stripe's own test mode, in the API version of the sandbox."""

    __test__ = False  # It is no test.
    url = "https://api.stripe.com"

    def __init__(self, key: str) -> None:
        self.key = key

    def ask(self, path: str, method: str, fields: Mapping[str, str], body: bytes) -> Answer:
        """Send a request to Stripe."""
        connection = HTTPSConnection("api.stripe.com", timeout=60)
        try:
            fields = {"Stripe-Version": load_description().version, **fields}
            connection.request(method, path, body=body, headers=fields)
            return answer_of(connection.getresponse())
        finally:
            connection.close()


class SandboxAt:
    """The controls of a sandbox that runs at a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://{HOST}:{port}"

    def control(self, path: str, said: object = None) -> Any:
        """Call a control below `/_sandbox/`: POST with a body, else GET."""
        method = "GET" if said is None else "POST"
        body = None if said is None else orjson.dumps(said)
        fields = {} if said is None else {"Content-Type": "application/json"}
        answer = ask(self.port, f"/_sandbox/{path}", method=method, body=body, fields=fields)
        assert answer.status == 200, answer
        return answer.json()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.control("clock", {"advance": seconds})


class Sandbox(SandboxAt, Api):
    """A sandbox on its own port. It can be killed, and started again on its state."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._arguments = arguments
        self._ports = Ports(1)
        super().__init__(*self._ports.numbers)
        self.key = KEY
        self.process: Process | None = None

    def start(self) -> "Sandbox":
        """Start the sandbox and return once it answers."""
        listen, state = f"{HOST}:{self.port}", self._folder / "sandbox.db"
        command = [*COMMAND, "--listen", listen, "--state", state, "--rates", "off", "--lag", "0", "--mail", "optional"]
        command += self._arguments
        process = self.process = Process(command, self._folder / "sandbox.log")
        until(lambda: not process.running or self.ready(), "the sandbox is ready", seconds=START)
        assert process.running, process.output
        return self

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            return ask(self.port, "/_sandbox/ready").status == 200
        except OSError:
            return False

    @property
    def output(self) -> str:
        """Its output."""
        assert self.process is not None
        return self.process.output

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        kill(self.process.pid)
        self.process.wait(10.0)

    def close(self) -> None:
        """Stop the sandbox. It must exit with code 0, unless it was killed."""
        try:
            if self.process is not None and self.process.running:
                code = self.process.wait_after(signal.SIGTERM, 30.0)
                assert code == 0, f"exit code {code}: {self.process.output}"
        finally:
            if self.process is not None:
                for pid in self.process.family():
                    kill(pid)
                print(self.process.output[-20_000:])  # pytest shows it if the test failed
            self._ports.close()

    # ---- requests

    def ask(self, path: str, method: str, fields: Mapping[str, str], body: bytes) -> Answer:
        """Send a request to the sandbox."""
        return ask(self.port, path, method=method, fields=fields, body=body)

    def faults(self, *faults: Mapping[str, Any], seed: int = 0) -> None:
        """Set the faults that happen, in place of earlier ones."""
        self.control("faults", {"seed": seed, "faults": faults})

    def journal(self, what: str = "", after: int = 0) -> list[dict[str, Any]]:
        """Return every effect once, oldest first, whose name starts with `what`."""
        entries: list[dict[str, Any]] = []
        while True:
            got = self.control(f"journal?what={what}&after={after}")
            entries += got["entries"]
            if not got["entries"]:
                return entries
            after = got["last"]

    def uncounted(self, event_name: str, identifier: str) -> None:
        """Send an invalid meter event, and return once a thin event reports it."""
        before = len(self.journal("v1.billing.meter."))
        body = (
            f"event_name={event_name}&identifier={identifier}&payload[stripe_customer_id]=cus_nobody&payload[value]=1"
        )
        assert self.call("POST", "/v1/billing/meter_events", body).status == 200
        until(lambda: len(self.journal("v1.billing.meter.")) > before, "the usage is reported")

    def listen(self, url: str) -> str:
        """Send all events to a URL. Returns the secret that signs them."""

        async def listen(client: stripe.StripeClient) -> str:
            created = await client.v1.webhook_endpoints.create_async({"url": url, "enabled_events": ["*"]})
            return str(created.secret)

        return self.run(listen)


class Checked(stripe.AIOHTTPClient):
    """Stripe's client for aiohttp, which checks each answer against Stripe's description."""

    async def request_async(self, *arguments: Any, **more: Any) -> Any:
        """Send a request and check the answer."""
        answer = await super().request_async(*arguments, **more)
        check(orjson.loads(answer[0]))
        return answer


async def advance_clock(client: stripe.StripeClient, clock: str, to: int) -> None:
    """Move a test clock forward, until all due work is done."""
    await client.v1.test_helpers.test_clocks.advance_async(clock, {"frozen_time": to})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (await client.v1.test_helpers.test_clocks.retrieve_async(clock)).status == "ready":
            return
    raise AssertionError("the clock is not there yet")


# ---- the description


def with_nulls(schema: Any) -> Any:
    """Convert a schema of OpenAPI 3.0 to JSON Schema."""
    if isinstance(schema, list):
        return [with_nulls(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: with_nulls(one) for name, one in schema.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


@functools.cache
def validator(kind: str) -> jsonschema_rs.Draft7Validator:
    """Return the validator of a type of objects."""
    schemas = with_nulls(dict(load_description().schemas))
    return jsonschema_rs.Draft7Validator(
        {"components": {"schemas": schemas}, "$ref": f"#/components/schemas/{kind}"}, validate_formats=False
    )


def check(body: dict[str, Any]) -> None:
    """Check an answer with all its objects against the description. Raises AssertionError."""
    if not body:  # A stream of meter events has an empty answer.
        return
    if "error" in body:
        expired = "v2.error.billing_meter_event_session_expired"
        kind = expired if expired.endswith(str(body["error"].get("code"))) else "error"
    elif body["object"] in ("list", "search_result"):
        for one in body["data"]:
            check(one)
        return
    else:
        kind = f"deleted_{body['object']}" if body.get("deleted") else body["object"]
    if kind not in load_description().schemas:
        assert kind.startswith(("deleted_v2", "deleted_ephemeral_key")), kind
        return
    faults = [f"{kind}{fault.instance_path}: {fault.message}" for fault in validator(kind).iter_errors(body)]
    assert not faults, faults
    if kind == "event":
        check(body["data"]["object"])
