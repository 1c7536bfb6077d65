"""The sender of customers' webhooks. Each message is tried until its endpoint accepts it, or it is given up.

All state is in the database, so a kill at any moment loses nothing. At worst a message is sent twice with one id. An
endpoint that is gone, or has failed for FAILING_SECONDS, is disabled.
"""

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.base.shares import ALL, Claim, Places
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.encryption import ColumnCipher
from edgeproxy.collector.database.periodic import Job, Rest, repeat, run_guarded
from edgeproxy.collector.database.webhook_tables import webhook_endpoints
from edgeproxy.collector.webhooks import deliveries
from edgeproxy.collector.webhooks.address_policy import find_customer_refusal
from edgeproxy.collector.webhooks.attempt_shares import RETRIES, UNPROVEN, build_claim, choose_candidates
from edgeproxy.collector.webhooks.deliveries import AttemptResult, Backlog, ClaimedDelivery, Pair, WebhookState
from edgeproxy.collector.webhooks.http_post import (
    GONE,
    LOOKUPS_MAX,
    SECONDS_MAX,
    DeliveryFailure,
    FindRefusal,
    Lookups,
    post_body,
)
from edgeproxy.collector.webhooks.messages import DISABLED, ENABLED
from edgeproxy.collector.webhooks.retries import STANDARD_BACKOFF_SECONDS, compute_wait
from edgeproxy.collector.webhooks.signature import sign_webhook
from edgeproxy.config.collector.webhooks import Webhooks

POLL_SECONDS = 1.0
"""Seconds between two checks for deliveries."""
BUSY_SECONDS = 0.1
"""Seconds until the next check after some were found."""
COUNT_SECONDS = 10.0
"""Seconds between two counts of outstanding deliveries."""
ATTEMPTS_MAX = 200
"""Concurrent attempts of this collector. `attempt_shares.py` divides them."""
CANDIDATES_MAX = 1000
"""Due deliveries considered in one check."""
PROMPT_SECONDS = 2.0
"""A prompt endpoint accepts a message within this many seconds."""
REMEMBERED_MAX = 20_000
"""Endpoints whose receiver and promptness are remembered."""
FAILING_SECONDS = 5 * 86400.0
"""Seconds of failures until an endpoint is disabled."""
SECRETS = "edgeproxy secrets of webhook endpoints"
"""The purpose for encrypting secrets."""
NO_SECRET = "its secret cannot be read: the key of it is not in webhooks.encryption any more"
IS_DISABLED = "the endpoint is disabled"


class WebhookMetrics(Protocol):
    """The metrics of customers' webhooks, for the collector's registry."""

    def webhook_tried(self, result: str) -> None:
        """Count an attempt: `sent`, `failed` or `dead`."""

    def webhooks_outstanding(self, backlog: Backlog, now: float) -> None:
        """Set the number of outstanding deliveries."""

    goods: list[ScarceGood]
    """The scarce goods."""


class DisabledEndpoint(NamedTuple):
    """An endpoint that no longer accepts messages."""

    id: str
    host: str
    customer: str
    """The name of the customer."""
    why: str


Post = Callable[[str, bytes, dict[str, str], FindRefusal], Awaitable[DeliveryFailure | None]]
"""Posts a body like `http_post.post_body`."""
OnDisabled = Callable[[AsyncConnection, DisabledEndpoint, float], Awaitable[None]]
"""Called in the transaction that disables an endpoint, at this Unix second."""


class WebhookSender:
    """Sends due deliveries until it is cancelled."""

    def __init__(
        self,
        database: Database,
        get_settings: Callable[[], Webhooks | None],
        metrics: WebhookMetrics,
        on_disabled: OnDisabled,
    ) -> None:
        self._database = database
        self._get_settings = get_settings
        self._metrics = metrics
        self._on_disabled = on_disabled
        self._tasks = Tasks()
        self._running: set[asyncio.Task[bool]] = set()
        self._busy: Counter[str] = Counter()
        """Running attempts by endpoint."""
        self._places = Places(ATTEMPTS_MAX)
        self._lookups = Lookups(LOOKUPS_MAX)
        self._receivers: LRUCache[tuple[str, int], str] = LRUCache(REMEMBERED_MAX)
        """The receivers of endpoints, by id and version."""
        self._prompt: LRUCache[str, bool] = LRUCache(REMEMBERED_MAX)
        """Endpoints that accepted the last message promptly."""
        self._good = ScarceGood("webhook_attempts", lambda: ATTEMPTS_MAX, lambda: self._places.in_use)
        metrics.goods += [self._good, self._lookups.good]
        self._counted_at = float("-inf")
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            failed = "webhooks could not be looked at, and are later"
            await repeat(Job("webhook-delivery", POLL_SECONDS, failed, self._step_now), self._limited_log)
        finally:
            await self._tasks.cancel()

    async def _step_now(self) -> Rest | None:
        return Rest(BUSY_SECONDS) if await self.step(time.time()) else None

    async def step(self, now: float) -> bool:
        """Start sending deliveries due at this Unix second. Return True if there were any."""
        settings = self._get_settings()
        if settings is None:
            return False
        if time.monotonic() - self._counted_at >= COUNT_SECONDS:
            self._counted_at = time.monotonic()
            async with self._database.reading() as connection:
                self._metrics.webhooks_outstanding(await deliveries.fetch_backlog(connection), now)
        now_ms = round(now * 1000)
        claims = await self._choose(now_ms)
        if not claims:
            return False
        try:
            async with self._database.writing() as connection:
                claimed = await deliveries.claim_due(connection, list(claims), now_ms)
        except BaseException:
            self._release(claims.values())
            raise
        for delivery in claimed:
            self._busy[delivery.endpoint] += 1
            claim = claims.pop((delivery.message, delivery.endpoint))
            failed = "an attempt to send a webhook could not be recorded, and is made again"
            attempt = run_guarded(self._limited_log, failed, self._attempt_delivery(delivery, claim, now, settings))
            task = self._tasks.start(f"webhook {delivery.message}", attempt)
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._release(claims.values())  # Another collector was faster.
        return bool(claimed)

    async def _choose(self, now_ms: int) -> dict[Pair, Claim]:
        """Take places for due deliveries. Return these deliveries with their claims."""
        if self._places.find_exhausted(()) is not None:
            self._good.record_refusal(ALL)
            return {}
        has_retries = self._places.find_exhausted((UNPROVEN, RETRIES)) is None
        async with self._database.reading() as connection:
            candidates = await deliveries.list_due(
                connection, now_ms, list(+self._busy), CANDIDATES_MAX, has_retries=has_retries
            )
            unknown = {
                candidate.endpoint
                for candidate in candidates
                if self._receivers[candidate.endpoint, candidate.version] is None
            }
            receivers = await deliveries.fetch_receivers(connection, unknown) if unknown else {}
        claims = []
        for candidate in candidates:
            receiver = self._receivers[candidate.endpoint, candidate.version]
            if receiver is None and (receiver := receivers.get(candidate.endpoint)) is not None:
                self._receivers.admit((candidate.endpoint, candidate.version), receiver)
            is_prompt = self._prompt[candidate.endpoint] is True
            claims.append((candidate, build_claim(candidate, receiver or candidate.endpoint, is_prompt=is_prompt)))
        choice = choose_candidates(claims, self._places)
        for key in choice.exhausted:
            self._good.record_refusal(key)
        return {(one.message, one.endpoint): claim for one, claim in choice.chosen}

    def _release(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._places.release(claim)

    async def wait_idle(self) -> None:
        """Wait until no attempt is running."""
        while self._running:
            await asyncio.wait(self._running)

    async def _attempt_delivery(self, delivery: ClaimedDelivery, claim: Claim, now: float, settings: Webhooks) -> None:
        """Try to send one message, and record the result."""
        began = time.monotonic()
        try:
            if delivery.endpoint_state == DISABLED:
                await self._record(delivery, now, DeliveryFailure(IS_DISABLED, is_final=True), is_endpoint_fault=False)
                return
            secrets = decrypt_secrets(delivery, settings, round(now * 1000))
            if not secrets:
                await self._record(delivery, now, DeliveryFailure(NO_SECRET), is_endpoint_fault=False)
                return
            post = functools.partial(post_body, lookups=self._lookups, claim=claim)
            failure = await send_delivery(delivery, secrets, settings, int(now), post)
            is_prompt = failure is None and time.monotonic() - began <= PROMPT_SECONDS
            self._prompt.admit(delivery.endpoint, is_prompt)
            await self._record(delivery, now + time.monotonic() - began, failure, is_endpoint_fault=failure is not None)
        finally:
            self._busy[delivery.endpoint] -= 1
            self._places.release(claim)

    async def _record(
        self, delivery: ClaimedDelivery, now: float, failure: DeliveryFailure | None, *, is_endpoint_fault: bool
    ) -> None:
        result = compute_result(delivery, now, failure)
        why = None if failure is None or not is_endpoint_fault else find_disabling(delivery, now, failure)
        async with self._database.writing() as connection:
            if failure is not None or delivery.failing_since is not None:
                # Before its delivery, because others lock the endpoint first (docs/design/row-locks.md).
                own = webhook_endpoints.c.id == delivery.endpoint
                await connection.execute(sa.select(webhook_endpoints.c.id).where(own).with_for_update())
            if not await deliveries.record_attempt(connection, delivery, result):
                return
            if failure is None:
                if delivery.failing_since is not None:
                    await _update_endpoint(connection, delivery.endpoint, failing_since=None)
            elif is_endpoint_fault and delivery.failing_since is None:
                await _update_endpoint(connection, delivery.endpoint, failing_since=round(now * 1000))
            if why is not None and await _update_endpoint(
                connection, delivery.endpoint, state=DISABLED, disabled_why=why
            ):
                host = urlsplit(delivery.url).hostname or ""
                disabled = DisabledEndpoint(delivery.endpoint, host, delivery.customer, why)
                await self._on_disabled(connection, disabled, now)
        outcome = {WebhookState.SENT: "sent", WebhookState.DUE: "failed", WebhookState.DEAD: "dead"}[result.state]
        self._metrics.webhook_tried(outcome)
        if failure is not None:
            about = {"customer": delivery.customer, "attempts": result.attempts, "why": failure.why}
            self._log.info(
                "an endpoint did not take a webhook", endpoint=delivery.endpoint, message=delivery.message, **about
            )


async def _update_endpoint(connection: AsyncConnection, endpoint: str, **values: int | str | None) -> bool:
    """Update columns of an enabled endpoint. Return False if it is not enabled."""
    own = (webhook_endpoints.c.id == endpoint) & (webhook_endpoints.c.state == ENABLED)
    statement = sa.update(webhook_endpoints).where(own).values(**values)
    return (await connection.execute(statement)).rowcount == 1


async def send_delivery(
    delivery: ClaimedDelivery, secrets: list[str], settings: Webhooks, second: int, post: Post
) -> DeliveryFailure | None:
    """Send a message once with `post`, signed at this Unix second. Return None if it was accepted."""
    text = delivery.body
    if delivery.display_name is not None:
        text = text.replace(delivery.customer, delivery.display_name)
    body, is_encrypted = text.encode(), delivery.url.startswith("https://")
    headers = sign_webhook(delivery.message, second, body, secrets)

    def find_refusal(address: str) -> str | None:
        return find_customer_refusal(address, settings.networks, is_encrypted=is_encrypted)

    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await post(delivery.url, body, headers, find_refusal)
    except TimeoutError:
        return DeliveryFailure(f"there was no answer within {SECONDS_MAX:g} s")
    except Exception as error:  # One message must not stop all others.
        return DeliveryFailure(f"it could not be sent: {type(error).__name__}")


def decrypt_secrets(delivery: ClaimedDelivery, settings: Webhooks, now: int) -> list[str]:
    """Return the secrets that sign at this Unix millisecond, newest first, or none if one cannot be decrypted."""
    closed = [delivery.secret]
    if delivery.old_secret is not None and (delivery.old_secret_until or 0) > now:
        closed.append(delivery.old_secret)
    cipher = ColumnCipher(settings.encryption, SECRETS)
    secrets = [cipher.decrypt(one, delivery.endpoint) for one in closed]
    return [secret.decode() for secret in secrets if secret is not None] if None not in secrets else []


def compute_result(delivery: ClaimedDelivery, now: float, failure: DeliveryFailure | None) -> AttemptResult:
    """Return the columns of a delivery after an attempt that ended at this Unix second."""
    attempts, now_ms = delivery.attempts + 1, round(now * 1000)
    if failure is None:
        return AttemptResult(WebhookState.SENT, attempts, now_ms, None, None, now_ms)
    wait = None if failure.is_final else compute_wait(attempts, failure.wait, random.random, STANDARD_BACKOFF_SECONDS)
    state = WebhookState.DEAD if wait is None else WebhookState.DUE
    due_at = round((now + (wait or 0.0)) * 1000)
    return AttemptResult(state, attempts, due_at, failure.status, failure.why, now_ms)


def find_disabling(delivery: ClaimedDelivery, now: float, failure: DeliveryFailure) -> str | None:
    """Return the reason for disabling an endpoint after a failure at this Unix second, or None."""
    if failure.status == GONE:
        return f"it answers {GONE}: it wants no more messages"
    if delivery.failing_since is not None and now * 1000 - delivery.failing_since >= FAILING_SECONDS * 1000:
        return f"it has taken nothing for {FAILING_SECONDS / 86400:.0f} days; at last {failure.why}"
    return None
