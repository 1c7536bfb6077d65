"""Calls of the API: authentication, rate limits, parameters, idempotency; and the response."""

import asyncio
import base64
import binascii
import hmac
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from stripe_sandbox import parameters
from stripe_sandbox.description import Description, Operation
from stripe_sandbox.expansion import expand
from stripe_sandbox.faults import AFTER, BEFORE, Fault
from stripe_sandbox.idempotency import IdempotencyKeys, StoredAnswer, compute_digest
from stripe_sandbox.objects.meter_streams import authenticate
from stripe_sandbox.operations import INCLUDED, OPERATIONS, PUBLISHABLE
from stripe_sandbox.rates import METER_EVENTS, Rates
from stripe_sandbox.refusal import ApiError, invalid_request, too_many_requests
from stripe_sandbox.state import State
from stripe_sandbox.store import transaction
from stripe_sandbox.transaction import Body, Request, Transaction, generate_id

KEY = re.compile(r"(sk|rk|pk)_(test|live)_\w+", re.ASCII)
BODY_MAX = 1 << 20
LOG = logging.getLogger("stripe-sandbox")


class Call(NamedTuple):
    """A partly parsed call."""

    operation: Operation
    ids: dict[str, str]
    live: bool
    id: str
    key: str | None
    """The idempotency key."""
    query: str
    body: bytes
    publishable: bool
    """The key is publishable, so browsers may have it."""
    is_older: bool
    """The call names an earlier API version than the description's."""

    @property
    def path(self) -> str:
        """The path of the request."""
        return self.operation.path.format(**self.ids)


class Answer(NamedTuple):
    """A response."""

    status: int
    body: bytes
    headers: dict[str, str]


class Server:
    """The handler of all calls of the API."""

    def __init__(
        self, description: Description, state: State, rates: Rates, *, takes_any_version: bool = False
    ) -> None:
        self._description = description
        self._state = state
        self._rates = rates
        self._takes_any_version = takes_any_version
        """Calls with other API versions are answered too, in the version of the description."""
        self._keys = IdempotencyKeys(state.connection)
        self._metering: set[tuple[bool, str, str]] = set()
        """Customers and event names with a meter event under way."""
        self._storm = 0.0
        """The end of the storm of 429, by the monotonic clock."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a call."""
        id = generate_id("req")
        body = await request.read()
        headers = {"Request-Id": id, "Stripe-Version": self._description.version}
        after: list[Fault] = []
        try:
            call = self._read(request, id, body)
            if call.key is not None:
                headers["Idempotency-Key"] = call.key
            answer = await self._answer_with_faults(request, call, after)
        except ApiError as error:
            answer = format_error(error)
        except ConnectionDroppedError:
            return drop_connection(request)
        except Exception:
            LOG.exception("%s %s failed, request %s", request.method, request.path, id)
            answer = format_error(ApiError(500, "The sandbox failed; its log says why.", kind="api_error"))
        return await self._send(request, answer, headers, after)

    def _read(self, request: web.Request, id: str, body: bytes) -> Call:
        match = self._description.find_operation(request.method, request.path)
        if match is None or match.operation.id not in OPERATIONS:
            raise ApiError(404, f"Unrecognized request URL ({request.method}: {request.path}).")
        if match.operation.id == "V2BillingMeterEventStream_create":
            kind, live = "session", authenticate(self._state.account, request.headers, int(self._state.clock()))
        else:
            kind, live = parse_key(request.headers.get("Authorization"))
        if kind == "pk" and match.operation.id not in PUBLISHABLE:
            raise ApiError(
                401,
                "This API call cannot be made with a publishable API key. Please use a secret API key. You can find a "
                "list of your API keys at https://dashboard.stripe.com/account/apikeys.",
                code="secret_key_required",
            )
        require_own_account(request.headers)
        version = request.headers.get("Stripe-Version", self._description.version)
        is_older = version != self._description.version
        if is_older and not self._takes_any_version:
            raise invalid_request(
                f"The sandbox speaks the version {self._description.version} alone, not {version}. With "
                "--versions any it answers calls of other versions as those of its own."
            )
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        return Call(match.operation, match.ids, live, id, key, request.query_string, body, kind == "pk", is_older)

    async def _answer_with_faults(self, request: web.Request, call: Call, after: list[Fault]) -> Answer:
        """Answer a call after the faults before its effect; `after` gets the faults after it."""
        self._rates.check(request.method, call.operation.path, time.monotonic(), self._state.count_payments())
        digest = compute_digest(request.method, call.path, call.query, call.body)
        held = None
        if call.key is not None:
            stored = self._keys.find(call.live, call.key, digest, int(self._state.clock()))
            if stored is not None:
                return replay_answer(stored)
            held = (call.live, call.key)
            self._keys.under_way.add(held)
        lock = None
        try:
            lock = self._get_lock(call)
            if delay := self._state.get_delay(request.path, request.method):
                await asyncio.sleep(delay)
            self._apply_early_faults(request, call, digest)
            if met := self._state.match_fault(AFTER, request.path, request.method):
                after.append(met)
            return self._execute(call, digest, next((fault for fault in after if fault.kind == "error_after"), None))
        finally:
            if held is not None:
                self._keys.under_way.discard(held)
            if lock is not None:
                self._metering.discard(lock)

    def _get_lock(self, call: Call) -> tuple[bool, str, str] | None:
        """Return the lock of a call: one call at a time for each customer and meter."""
        if call.operation.path != METER_EVENTS:
            return None
        form = dict(parse_qsl(call.body.decode(errors="replace")))
        lock = (call.live, form.get("event_name", ""), form.get("payload[stripe_customer_id]", ""))
        if lock in self._metering:
            message = (
                "There is currently another in-progress request for this customer and meter. Please try again later."
            )
            raise ApiError(409, message, headers={"Stripe-Should-Retry": "true"})
        self._metering.add(lock)
        return lock

    def _apply_early_faults(self, request: web.Request, call: Call, digest: str) -> None:
        """Apply the faults before the effect of a call."""
        now = time.monotonic()
        if self._storm > now:
            raise too_many_requests("global-rate")
        fault = self._state.match_fault(BEFORE, request.path, request.method)
        match None if fault is None else fault.kind:
            case "call_lost":
                raise ConnectionDroppedError
            case "restart_before":
                restart()
            case "rate_limited":
                assert fault is not None
                self._storm = now + fault.seconds
                raise too_many_requests(fault.reason)
            case "refused":
                assert fault is not None
                raise ApiError(fault.status or 401, "Refused, as a fault that was asked for.")
            case "error_before":
                assert fault is not None
                answer = format_failure(fault)
                self._store_answer(call, digest, answer)
                raise ApiError(answer.status, FAILED, kind="api_error")

    def _execute(self, call: Call, digest: str, fails: Fault | None) -> Answer:
        """Execute the operation, and store its response with its effect."""
        values, client_secret = self._parse_parameters(call)
        now = int(self._state.clock())
        request = Request(call.id, call.key, call.path)
        try:
            with transaction(self._state.connection):
                tx = Transaction(self._state.account, call.live, now, request)
                try:
                    if call.publishable:
                        check_client_secret(tx, call, values, client_secret)
                    answer = self._render(tx, call, values)
                except ApiError as error:
                    if error.commits and error.status != 429:
                        self._store_answer(call, digest, format_error(error))
                    raise
                if fails is not None:
                    answer = format_failure(fails)
                self._store_answer(call, digest, answer)
        except ApiError as error:
            if not error.commits and error.status not in (409, 429):
                self._store_answer(call, digest, format_error(error))
            raise
        self._state.wake()
        return answer

    def _parse_parameters(self, call: Call) -> tuple[Body, object]:
        """Parse the parameters of a call, and the client secret that comes with a publishable key."""
        if call.path.startswith("/v2/") and call.operation.method == "POST":
            try:
                written = orjson.loads(call.body or b"{}")
            except orjson.JSONDecodeError:
                raise invalid_request("The body is not JSON.") from None
        else:
            pairs = parse_qsl(call.query, keep_blank_values=True)
            try:
                pairs += parse_qsl(call.body.decode(), keep_blank_values=True)
            except UnicodeDecodeError:
                raise invalid_request("The body is not a form in UTF-8.") from None
            written = parameters.parse_pairs(pairs)
        client_secret = written.pop("client_secret", None) if call.publishable else None
        parameters.take_ways_to_pay(call.operation.parameters, written, is_older=call.is_older)
        return parameters.parse_parameters(call.operation.parameters, written), client_secret

    def _render(self, tx: Transaction, call: Call, values: Body) -> Answer:
        expand_paths = values.pop("expand", [])
        result = OPERATIONS[call.operation.id](tx, call.ids, values)
        if not result:
            return Answer(200, b"{}", {})
        body = (
            {**result, "data": [tx.render(member) for member in result["data"]]}
            if is_list(result)
            else tx.render(result)
        )
        expand(tx, body, call.operation.answer, expand_paths, INCLUDED)
        body = {name: value for name, value in body.items() if not name.startswith("_")}
        if call.publishable:
            body = {name: value for name, value in body.items() if name not in SECRET_FIELDS}
        return Answer(200, orjson.dumps(body), {})

    def _store_answer(self, call: Call, digest: str, answer: Answer) -> None:
        if call.key is not None:
            stored = StoredAnswer(call.id, answer.status, answer.body)
            self._keys.store(call.live, call.key, digest, int(self._state.clock()), stored)

    async def _send(
        self, request: web.Request, answer: Answer, headers: dict[str, str], after: list[Fault]
    ) -> web.StreamResponse:
        headers = {**headers, **answer.headers, "Date": formatdate(self._state.clock(), usegmt=True)}
        for fault in after:
            match fault.kind:
                case "restart_after":
                    restart()
                case "answer_lost":
                    return drop_connection(request)
                case "answer_cut":
                    return await cut_answer(request, answer, headers)
        return web.Response(status=answer.status, body=answer.body, headers=headers, content_type="application/json")


class ConnectionDroppedError(Exception):
    """A call is dropped without a response."""


FAILED = "An unexpected error occurred, as a fault that was asked for."


def format_failure(fault: Fault) -> Answer:
    """Build the response of an internal failure."""
    return format_error(ApiError(fault.status or 500, FAILED, kind="api_error"))


def format_error(error: ApiError) -> Answer:
    """Build the response of a refusal."""
    return Answer(error.status, orjson.dumps(error.body), error.headers)


def replay_answer(stored: StoredAnswer) -> Answer:
    """Replay the first response to an idempotency key."""
    headers = {"Idempotent-Replayed": "true", "Original-Request": stored.request}
    return Answer(stored.status, stored.body, headers)


def is_list(result: Body) -> bool:
    """Return whether a response is a list of objects."""
    return result.get("object") in ("list", "search_result")


SECRET_FIELDS = ("customer", "latest_charge", "latest_attempt", "metadata", "transfer_group", "amount_received")
"""Fields of an object that answers to a publishable key do not have."""
BROWSER_EXPANSIONS = ("payment_method",)
"""The only fields that a call with a publishable key may expand."""


def check_client_secret(tx: Transaction, call: Call, values: Body, client_secret: object) -> None:
    """Raise the refusal of a call with a publishable key without the client secret of its object."""
    for path in values.get("expand", ()):
        if path not in BROWSER_EXPANSIONS:
            raise invalid_request(f"This property cannot be expanded ({path}).", "expand")
    if values.get("off_session"):
        raise invalid_request("You cannot set `off_session` with a publishable key.", "off_session")
    kind = PUBLISHABLE[call.operation.id]
    if kind is None:
        return
    if not isinstance(client_secret, str):
        raise invalid_request("Missing required param: client_secret.", "client_secret", "parameter_missing")
    intent = tx.find(kind, call.ids["id"])
    if intent is None or not hmac.compare_digest(client_secret.encode(), intent["client_secret"].encode()):
        raise invalid_request(
            "The client_secret provided does not match any associated intent on this account. Ensure the publishable "
            "key used belongs to the same account that created the intent.",
            "client_secret",
        )


def parse_key(authorization: str | None) -> tuple[str, bool]:
    """Return the kind of a key, by Bearer or Basic, and whether it is of the live mode."""
    if authorization is None:
        raise ApiError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(key, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    match = KEY.fullmatch(key.strip())
    if match is None:
        raise ApiError(401, f"Invalid API Key provided: {key[:7]}{'*' * 8}{key[-4:] if len(key) > 16 else ''}")
    return match[1], match[2] == "live"


def require_own_account(headers: Mapping[str, str]) -> None:
    """Raise the refusal of a call on behalf of another account: none is connected to the sandbox's."""
    for name in ("Stripe-Account", "Stripe-Context"):
        if account := headers.get(name):
            raise ApiError(
                403,
                f"The provided key does not have access to account '{account}' (or that account does not exist). "
                "Application access may have been revoked. The sandbox has one account, and no Connect.",
                code="account_invalid",
            )


def drop_connection(request: web.Request) -> web.Response:
    """Close a connection without a response."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def cut_answer(request: web.Request, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    """Send half of a response, and close the connection."""
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_type, response.content_length = "application/json", len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def restart() -> None:
    """Replace the process at once, as after a kill -9."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
