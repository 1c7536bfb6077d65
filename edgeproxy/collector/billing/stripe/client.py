"""A client of Stripe's API, and the only module that imports Stripe's package.

A call is made once; the caller decides the next step from the outcome. Results are plain values.
"""

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote_plus

import aiohttp
import orjson

from edgeproxy.base.http_peer import AnswerBoundError, HttpPeer, OutgoingProxyError, open_session
from edgeproxy.base.log import RedactionFilter, redact
from edgeproxy.collector.billing.stripe.request_rates import RequestPacer
from edgeproxy.config.collector.billing import KEY_VARIABLE, SECRETS_VARIABLE
from edgeproxy.config.collector.billing import Stripe as StripeSettings
from edgeproxy.config.secret_text import InvalidSecretError, parse_secret, read_secret_bytes, read_secret_file
from edgeproxy.tracing.recorder import trace_call

if TYPE_CHECKING:
    import stripe

KEY = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{4,250}")
PEER = HttpPeer("Stripe", 80.0, 16 << 20)
LIVE_RATE, TEST_RATE, ENDPOINT_RATE, EVENT_RATE = 100.0, 25.0, 25.0, 1000.0
"""Calls per second that Stripe allows: with a live key, with a test key, per endpoint, and for meter events.

With a live key, meter events have a rate of their own.
"""
METER_EVENTS = "/v1/billing/meter_events"
KEYS_MAX = 3
"""The most Idempotency-Keys to try while a caller waits."""
CONNECTIONS_MAX = 512
"""The most concurrent calls. The exporter makes fewer, so that others need not wait for it."""
PLAIN = re.compile(r"[A-Za-z0-9_]*").fullmatch
"""Matches a text that needs no quoting in a form."""
QUOTED_ERRORS = (AnswerBoundError, OutgoingProxyError)
"""Errors whose text quotes no request."""
LOGGERS = ("stripe", "aiohttp.client")


MISSING = "resource_missing"
"""The error code for an object that Stripe does not have."""


class StripeConfigurationError(Exception):
    """Stripe cannot be called with this configuration. The message is for the operator who starts the collector."""


StripeObject = dict[str, Any]
"""An object of Stripe in the JSON form of its API."""
T = TypeVar("T")


class CallOutcome(Enum):
    """The meaning of a response that is not a success."""

    REFUSED = "refused"
    """Stripe did nothing, and will refuse a repetition: 400, 402, 404."""
    DENIED = "denied"
    """Stripe did nothing, and will do nothing with this API key: 401, 403."""
    BUSY = "busy"
    """Stripe did nothing; a repetition may succeed later: 409, 429."""
    FAILED = "failed"
    """The effect is unknown, and a repetition with the Idempotency-Key gets the same answer: 500 to 504."""
    LOST = "lost"
    """The effect is unknown, but a repetition with the Idempotency-Key reveals it: no answer, or an incomplete one."""
    REUSED = "reused"
    """Stripe did nothing: another request used this Idempotency-Key before."""


class StripeCallError(Exception):
    """A call failed, or its result is unknown. The message contains no keys."""

    def __init__(
        self,
        outcome: CallOutcome,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        decline_code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(outcome, redact(message))
        self.outcome = outcome
        self.message = redact(message)
        self.status = status
        self.code = code
        self.decline_code = decline_code
        """The bank's reason for a declined payment."""
        self.param = param
        self.request_id = request_id
        self.reason = reason
        """The limit that a 429 reports in `Stripe-Rate-Limited-Reason`, or None for a lock."""

    def __str__(self) -> str:
        return f"{self.message} ({self.status or self.outcome.value}, request {self.request_id or 'unknown'})"


async def try_keys(send: Callable[[int], Awaitable[T]]) -> T:
    """Call `send` with the number of Idempotency-Keys tried before, and return its result.

    For a day Stripe repeats its failure for a key, and refuses the key with other parameters, such as a new name of a
    customer. So another key is tried at once. Raises StripeCallError.
    """
    for tries in range(KEYS_MAX - 1):
        try:
            return await send(tries)
        except StripeCallError as error:
            if error.outcome not in (CallOutcome.FAILED, CallOutcome.REUSED):
                raise
    return await send(KEYS_MAX - 1)


class Stripe:
    """A client, created in its event loop.

    Raises StripeConfigurationError if the key is missing or not of the configured mode.
    """

    def __init__(self, settings: StripeSettings, environ: Mapping[str, str] = os.environ) -> None:
        import stripe  # The import takes a second, and is only needed to charge.

        key = read_secret_key(settings, environ)
        self.is_live = "_live_" in key
        self._sdk = stripe
        stripe.enable_telemetry = False
        for name in LOGGERS:
            logger = logging.getLogger(name)
            if not any(isinstance(log_filter, RedactionFilter) for log_filter in logger.filters):
                logger.addFilter(RedactionFilter())
        self._session = open_session(PEER, limit=CONNECTIONS_MAX)
        self._events_url = settings.base + METER_EVENTS
        self._event_headers = {
            "Stripe-Version": stripe.api_version,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        http = self._http = stripe.AIOHTTPClient(
            timeout=aiohttp.ClientTimeout(total=PEER.seconds_max), session=self._session
        )
        self._close_http: Callable[[], Awaitable[None]] = http.close_async
        self._base = settings.base
        self.use_key(key)
        self.pace = RequestPacer(LIVE_RATE if self.is_live else TEST_RATE, ENDPOINT_RATE)
        """The pace of calls. A rate-limited caller may slow it down."""
        self.events_pace = RequestPacer(EVENT_RATE, EVENT_RATE) if self.is_live else self.pace

    def use_key(self, key: str) -> None:
        """Make all later calls with this key. Its account and mode are those of the key before."""
        self._event_headers = {**self._event_headers, "Authorization": f"Bearer {key}"}
        self._client = self._sdk.StripeClient(
            key,
            base_addresses={"api": self._base, "files": self._base, "meter_events": self._base},
            # Callers decide on retries: they know which Idempotency-Key a retry needs.
            max_network_retries=0,
            http_client=self._http,
        )
        # Without this hook the package builds objects that `to_dict` would have to convert back, which takes most of a
        # call's time. It is the only use of a private attribute. The package's version is pinned, and a test in
        # test_client.py fails if the attribute is gone.
        requestor: Any = self._client._requestor
        requestor.request_async = self._request_plain

    async def close(self) -> None:
        """Close all connections."""
        await self._close_http()
        await self._session.close()

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: object) -> StripeObject:
        """Call a method of the package, for example `v1.invoices.create`, and return the object.

        `ids` are the parts of the path, `key` is the Idempotency-Key. Raises StripeCallError.
        """
        method: Any = self._client
        for step in f"{name}_async".split("."):
            method = getattr(method, step)
        options = {} if key is None else {"idempotency_key": key}
        return await self._send_paced(name, partial(method, *ids, params, options))

    async def _request_plain(
        self,
        method: str,
        url: str,
        params: StripeObject | None = None,
        options: StripeObject | None = None,
        *,
        base_address: str = "api",
        usage: object = None,
    ) -> StripeObject:
        """Make a request of the package and return the object. Raises StripeCallError."""
        arguments = {**(params or {}), **(options or {})}
        result = (await self._client.raw_request_async(method, url, base=base_address, **arguments)).data
        if not isinstance(result, dict):
            raise StripeCallError(CallOutcome.LOST, "no whole answer: it is no object")
        return result

    async def _send_paced(self, name: str, send: Callable[[], Awaitable[StripeObject]]) -> StripeObject:
        """Call `send` once the rate allows a call of this name. Raises StripeCallError."""
        await asyncio.sleep(self.pace.reserve_slot(name, asyncio.get_running_loop().time()))
        try:
            with trace_call(f"stripe {name}", {}):
                return await send()
        except self._sdk.StripeError as error:
            raise parse_error(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError) as error:
            # The package reads the body outside its own try block, and takes any `error` for an object.
            raise StripeCallError(CallOutcome.LOST, f"no whole answer: {describe_loss(error)}") from None

    async def send_event(self, key: str, fields: Mapping[str, str]) -> int | None:
        """Send a meter event as a form, and return Stripe's Unix second, or None for a replayed response.

        Raises StripeCallError. The request does not use the package, which takes three times as long for such a small
        request; there are up to a thousand per second.
        """
        if wait := self.events_pace.reserve_slot(METER_EVENTS, asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)
        headers = {**self._event_headers, "Idempotency-Key": key}
        try:
            with trace_call("stripe v1.billing.meter_events.create", {}) as span:
                async with self._session.post(self._events_url, data=encode_form(fields), headers=headers) as response:
                    status, body = response.status, await response.read()
                    if span is not None:
                        span.set_status(status)
            decoded = orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StripeCallError(CallOutcome.LOST, f"no whole answer: {describe_loss(error)}") from None
        except orjson.JSONDecodeError:
            decoded = None
        result: StripeObject = decoded if isinstance(decoded, dict) else {}
        if status < 300 and result:
            return None if response.headers.get("Idempotent-Replayed") == "true" else result.get("created")
        error_value = result.get("error")
        error_fields: StripeObject = error_value if isinstance(error_value, dict) else {}
        raise StripeCallError(
            classify_status(status, is_reused=error_fields.get("type") == "idempotency_error"),
            str(error_fields.get("message") or f"an answer of status {status}"),
            status=status,
            code=error_fields.get("code"),
            param=error_fields.get("param"),
            request_id=response.headers.get("Request-Id"),
            reason=response.headers.get("Stripe-Rate-Limited-Reason"),
        )

    async def find(self, name: str, /, *ids: str) -> StripeObject | None:
        """Call a method that retrieves an object, or return None if Stripe has no object of that id.

        Raises StripeCallError.
        """
        try:
            return await self.call(name, *ids)
        except StripeCallError as error:
            if error.code != MISSING:
                raise
            return None

    async def list_all(self, name: str, /, *ids: str, **params: object) -> list[StripeObject]:
        """Return all objects of a list, page by page. Raises StripeCallError.

        API v1 says whether there is a next page; v2 gives its URL.
        """
        query: StripeObject = {"limit": 100, **params}
        page = await self.call(name, *ids, **query)
        items: list[StripeObject] = []
        while True:
            if not isinstance(page.get("data"), list):
                raise StripeCallError(CallOutcome.LOST, "no whole answer: it is no list")
            items += page["data"]
            if next_url := page.get("next_page_url"):
                page = await self._send_paced(name, partial(self._request_plain, "get", next_url))
            elif page.get("has_more"):
                page = await self.call(name, *ids, **query, starting_after=items[-1]["id"])
            else:
                return items


def describe_loss(error: Exception) -> str:
    """Describe why the answer is missing or incomplete.

    Only texts about bounds and the site's proxy are included, as others may quote the request.
    """
    return str(error) if isinstance(error, QUOTED_ERRORS) else type(error).__name__


def encode_form(fields: Mapping[str, str]) -> bytes:
    """Encode fields as a form.

    Plain text is not quoted, as quoting takes twenty times as long and most values are plain.
    """
    return "&".join(f"{_quote(name)}={_quote(value)}" for name, value in fields.items()).encode()


def _quote(text: str) -> str:
    return text if PLAIN(text) else _quote_cached(text)


@lru_cache(maxsize=64)
def _quote_cached(text: str) -> str:
    return quote_plus(text)


def parse_error(error: "stripe.StripeError") -> StripeCallError:
    """Convert an error of the package."""
    import stripe

    status = error.http_status
    if isinstance(error, stripe.APIConnectionError) or status is None:
        outcome = CallOutcome.LOST
    else:
        outcome = classify_status(status, is_reused=isinstance(error, stripe.IdempotencyError))
    cause = error.__context__  # The package's message does not quote the cause.
    return StripeCallError(
        outcome,
        f"no whole answer: {cause}" if isinstance(cause, QUOTED_ERRORS) else str(error.user_message or error),
        status=status,
        code=error.code,
        decline_code=getattr(error.error, "decline_code", None),
        param=getattr(error, "param", None),
        request_id=error.request_id,
        reason=(error.headers or {}).get("stripe-rate-limited-reason"),
    )


def classify_status(status: int, *, is_reused: bool) -> CallOutcome:
    """Return the outcome of a status that is not a success, or of a success without a JSON body."""
    if is_reused:
        return CallOutcome.BUSY if status == 409 else CallOutcome.REUSED
    if status >= 500:
        return CallOutcome.FAILED
    if status < 300:
        return CallOutcome.LOST
    by_status = {401: CallOutcome.DENIED, 403: CallOutcome.DENIED, 409: CallOutcome.BUSY, 429: CallOutcome.BUSY}
    return by_status.get(status, CallOutcome.REFUSED)


def read_secret_key(settings: StripeSettings, environ: Mapping[str, str]) -> str:
    """Return the configured key. Raises StripeConfigurationError."""
    where = f"the variable {KEY_VARIABLE}" if settings.key is None else f"the file {settings.key}"
    try:
        key = parse_secret(environ.get(KEY_VARIABLE, "")) if settings.key is None else read_secret_file(settings.key)
    except InvalidSecretError as error:
        raise StripeConfigurationError(f"{where} has no key for Stripe: it {error}") from None
    if not key:
        raise StripeConfigurationError(f"{where} has no key for Stripe: set it, or write mode: off in billing")
    match = KEY.fullmatch(key)
    if match is None:
        raise StripeConfigurationError(f"what {where} has is no secret or restricted key of Stripe")
    if (match[2] == "live") != settings.live:
        if settings.live:
            raise StripeConfigurationError(f"{where} has a test key, and billing.stripe has live: true")
        raise StripeConfigurationError(
            f"{where} has a live key, which moves money: write live: true in billing.stripe if that is meant"
        )
    return key


def read_webhook_secrets(settings: StripeSettings, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the secrets that may sign webhooks, separated by spaces or line ends in their source.

    Raises StripeConfigurationError.
    """
    where = SECRETS_VARIABLE if settings.webhook_secrets is None else str(settings.webhook_secrets)
    try:
        content = (
            environ.get(SECRETS_VARIABLE, "").encode(errors="surrogateescape")
            if settings.webhook_secrets is None
            else read_secret_bytes(settings.webhook_secrets)
        )
        secrets = tuple(map(parse_secret, content.split()))
    except InvalidSecretError as error:
        raise StripeConfigurationError(f"the secrets of webhooks, {where}: {error}") from None
    if not all(secret.startswith("whsec_") for secret in secrets):
        raise StripeConfigurationError("one of the secrets of webhooks does not begin with whsec_")
    return secrets
