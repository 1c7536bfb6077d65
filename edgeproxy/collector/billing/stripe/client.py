"""Stripe, by its own package: the one file that knows it.

A call is made once; whoever makes it decides what comes next, by what the answer means. What Stripe returns is given as
plain values.
"""

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import aiohttp
import orjson

from edgeproxy.base.log import Redacting, redacted
from edgeproxy.collector.billing.stripe.request_rates import Pace
from edgeproxy.config.billing import KEY_VARIABLE, SECRETS_VARIABLE
from edgeproxy.config.billing import Stripe as StripeSettings

if TYPE_CHECKING:
    import stripe

KEY = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{4,250}")
CALL_SECONDS_MAX = 80.0
"""Seconds that an answer may take."""
LIVE_RATE, TEST_RATE, ENDPOINT_RATE, EVENT_RATE = 100.0, 25.0, 25.0, 1000.0
"""Calls a second that Stripe allows: in all with a live key and with a test key, of an endpoint, and of meter events,
which with a live key are beside the others."""
METER_EVENTS = "/v1/billing/meter_events"
CONNECTIONS_MAX = 512
"""Calls that may be under way: more than the exporter makes at once, so that others do not wait for it."""
PLAIN = re.compile(r"[A-Za-z0-9_]*").fullmatch
"""Whether a text is the same in a form."""
LOGGERS = ("stripe", "aiohttp.client")


class Unusable(Exception):
    """Stripe cannot be asked with what is configured: a sentence for who started the collector."""


class Outcome(Enum):
    """What an answer that is no success means, and so what is next."""

    REFUSED = "refused"
    """Nothing was done, and the same request will be refused again: 400, 402, 404."""
    DENIED = "denied"
    """Nothing was done, and nothing will be with this key: 401, 403."""
    BUSY = "busy"
    """Nothing was done; the same request may pass later: 409, 429."""
    FAILED = "failed"
    """Nobody knows what was done, and the same Idempotency-Key is answered the same: 500 to 504."""
    LOST = "lost"
    """Nobody knows what was done, and the same Idempotency-Key tells: no answer, or half of one."""
    REUSED = "reused"
    """Nothing was done: this Idempotency-Key came with another request before."""


class StripeFailure(Exception):
    """Stripe did not do as it was asked, as far as is known. What it says has no keys in it."""

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(outcome, redacted(message))
        self.outcome = outcome
        self.message = redacted(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.reason = reason
        """Of a 429: which limit it was, as `Stripe-Rate-Limited-Reason` has it; None where it was a lock."""

    def __str__(self) -> str:
        return f"{self.message} ({self.status or self.outcome.value}, request {self.request_id or 'unknown'})"


class Stripe:
    """A client, made in the event loop that it is of. Raises Unusable where there is no key, or not of the kind that
    the settings say."""

    def __init__(self, settings: StripeSettings, environ: Mapping[str, str] = os.environ) -> None:
        import stripe  # It takes a second, and who does not charge needs none of it.

        key = self._key = secret_key(settings, environ)
        self.is_live = "_live_" in key
        self._sdk = stripe
        stripe.enable_telemetry = False
        for name in LOGGERS:
            logger = logging.getLogger(name)
            if not any(isinstance(one, Redacting) for one in logger.filters):
                logger.addFilter(Redacting())
        trusted = ssl.create_default_context(cafile=stripe.ca_bundle_path)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=trusted),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS_MAX),
        )
        self._events_url = settings.base + METER_EVENTS
        self._event_headers = {
            "Authorization": f"Bearer {key}",
            "Stripe-Version": stripe.api_version,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        self._http: Any = stripe.AIOHTTPClient(session=self._session)
        self._client = stripe.StripeClient(
            key,
            base_addresses={"api": settings.base, "files": settings.base, "meter_events": settings.base},
            max_network_retries=0,
            http_client=self._http,
        )
        # What the package makes of an answer is undone again by `to_dict`, and takes most of a call's time.
        requestor: Any = self._client._requestor
        requestor.request_async = self._plain
        self.pace = Pace(LIVE_RATE if self.is_live else TEST_RATE, ENDPOINT_RATE)
        """How fast it is asked; who is refused for asking too fast may slow it down."""
        self.events_pace = Pace(EVENT_RATE, EVENT_RATE) if self.is_live else self.pace

    async def close(self) -> None:
        """End all connections."""
        await self._http.close_async()
        await self._session.close()

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        """Ask for what the package calls `name`, such as `v1.invoices.create`, and return the object that it answers.

        `ids` are the parts of the path, `key` is the Idempotency-Key. Raises StripeFailure.
        """
        method: Any = self._client
        for step in f"{name}_async".split("."):
            method = getattr(method, step)
        options = {} if key is None else {"idempotency_key": key}
        told: dict[str, Any] = await self._answer(name, partial(method, *ids, params, options))
        return told

    async def _plain(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        base_address: str = "api",
        usage: Any = None,
    ) -> dict[str, Any]:
        """Make a request of the package's, and return the object that it answers; raises StripeFailure."""
        said = {**(params or {}), **(options or {})}
        found = (await self._client.raw_request_async(method, url, base=base_address, **said)).data
        if not isinstance(found, dict):
            raise StripeFailure(Outcome.LOST, "no whole answer: it is no object")
        return found

    async def _answer(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask once there is room for a call of this name; raises StripeFailure."""
        await asyncio.sleep(self.pace.wait(name, asyncio.get_running_loop().time()))
        try:
            return await ask()
        except self._sdk.StripeError as error:
            raise failure_of(error, self._sdk) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError) as error:
            # The package reads bodies outside of what it catches, and takes any `error` for an object.
            raise StripeFailure(Outcome.LOST, f"no whole answer: {type(error).__name__}") from None

    async def send_event(self, key: str, fields: Mapping[str, str]) -> int | None:
        """Send a meter event, by the names of its form, and return Stripe's time, in Unix seconds; None where it only
        repeats what it answered before. Raises StripeFailure.

        As `call`, without the package: that takes three times as long to make a request of so little, and an object of
        the answer, and there are up to a thousand a second.
        """
        if wait := self.events_pace.wait(METER_EVENTS, asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)
        headers = {**self._event_headers, "Idempotency-Key": key}
        try:
            async with self._session.post(self._events_url, data=form(fields), headers=headers) as answer:
                status, body = answer.status, await answer.read()
            found = orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StripeFailure(Outcome.LOST, f"no whole answer: {type(error).__name__}") from None
        except orjson.JSONDecodeError:
            found = None
        said: dict[str, Any] = found if isinstance(found, dict) else {}
        if status < 300 and said:
            return None if answer.headers.get("Idempotent-Replayed") == "true" else said.get("created")
        told = said.get("error")
        wrong: dict[str, Any] = told if isinstance(told, dict) else {}
        raise StripeFailure(
            outcome_of(status, is_reused=wrong.get("type") == "idempotency_error"),
            str(wrong.get("message") or f"an answer of status {status}"),
            status=status,
            code=wrong.get("code"),
            param=wrong.get("param"),
            request_id=answer.headers.get("Request-Id"),
            reason=answer.headers.get("Stripe-Rate-Limited-Reason"),
        )

    async def every(self, name: str, /, *ids: str, **params: Any) -> list[dict[str, Any]]:
        """All of a list, page by page; raises StripeFailure. v1 says that there is more, and v2 where that is."""
        asked = {"limit": 100, **params}
        page: Any = await self.call(name, *ids, **asked)
        found: list[dict[str, Any]] = page["data"]
        while True:
            if following := page.get("next_page_url"):
                page = await self._answer(name, partial(self._plain, "get", following))
            elif page.get("has_more"):
                page = await self.call(name, *ids, **asked, starting_after=found[-1]["id"])
            else:
                return found
            found += page["data"]


def form(fields: Mapping[str, str]) -> bytes:
    """Fields as a form. Most of what meter events have is written as it is; to quote it takes twenty times as long."""
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in fields.items()).encode()


def _quoted(text: str) -> str:
    return text if PLAIN(text) else _quoted_anew(text)


@lru_cache(maxsize=64)
def _quoted_anew(text: str) -> str:
    return quote_plus(text)


def failure_of(error: "stripe.StripeError", sdk: Any) -> StripeFailure:
    """What an error of the package means."""
    status = error.http_status
    said: dict[str, Any] = {
        "status": status,
        "code": error.code,
        "param": getattr(error, "param", None),
        "request_id": error.request_id,
        "reason": (error.headers or {}).get("stripe-rate-limited-reason"),
    }
    message = str(error.user_message or error)
    if isinstance(error, sdk.APIConnectionError) or status is None:
        return StripeFailure(Outcome.LOST, message, **said)
    return StripeFailure(outcome_of(status, is_reused=isinstance(error, sdk.IdempotencyError)), message, **said)


def outcome_of(status: int, *, is_reused: bool) -> Outcome:
    """What a status means that is no success, or is one whose body is no JSON."""
    if is_reused:
        return Outcome.BUSY if status == 409 else Outcome.REUSED
    if status >= 500:
        return Outcome.FAILED
    if status < 300:
        return Outcome.LOST
    by_status = {401: Outcome.DENIED, 403: Outcome.DENIED, 409: Outcome.BUSY, 429: Outcome.BUSY}
    return by_status.get(status, Outcome.REFUSED)


def secret_key(settings: StripeSettings, environ: Mapping[str, str]) -> str:
    """Return the key that is used; raises Unusable."""
    if settings.key is not None:
        key, where = contents(settings.key), f"the file {settings.key}"
    else:
        key, where = environ.get(KEY_VARIABLE, "").strip(), f"the variable {KEY_VARIABLE}"
    if not key:
        raise Unusable(f"{where} has no key for Stripe: set it, or write mode: off in billing")
    match = KEY.fullmatch(key)
    if match is None:
        raise Unusable(f"what {where} has is no secret or restricted key of Stripe")
    if (match[2] == "live") != settings.live:
        if settings.live:
            raise Unusable(f"{where} has a test key, and billing.stripe has live: true")
        raise Unusable(
            f"{where} has a live key, which moves money: write live: true in billing.stripe if that is meant"
        )
    return key


def webhook_secrets(settings: StripeSettings, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the secrets by which webhooks may be signed; raises Unusable."""
    if settings.webhook_secrets is not None:
        said = contents(settings.webhook_secrets)
    else:
        said = environ.get(SECRETS_VARIABLE, "")
    found = tuple(said.split())
    if not all(secret.startswith("whsec_") for secret in found):
        raise Unusable("one of the secrets of webhooks does not begin with whsec_")
    return found


def contents(file: Any) -> str:
    """What is in a file with keys; raises Unusable."""
    try:
        with open(file, encoding="ascii") as opened:
            return opened.read(16 << 10).strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise Unusable(f"{file} cannot be read: {getattr(failure, 'strerror', None) or 'it is no text'}") from None
