"""Shipping: sealed batches go to the collector in order, one at a time, until it acknowledges them.

The watermark is the last batch that the collector has acknowledged. Later batches are sent, and sent again for as long
as it takes; a batch that was sent twice is counted once (collector/ledger/chain.py). A collector that was restored from
a backup requests the batches that it lacks, and the watermark goes back; batches that were removed here by then become
a gap batch.

backlog.py lists the batches to ship, answer.py interprets answers, and transport.py sends.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from edgeproxy.base import log
from edgeproxy.edge.usage.answer import RESULTS, Act, AnswerMeaning, Reply, interpret_answer
from edgeproxy.edge.usage.backlog import Backlog, Parcel, find_position
from edgeproxy.edge.usage.spool import DamagedSpoolError, Pending, Spool
from edgeproxy.wire.batch import Batch

__all__ = ["RESULTS", "Act", "AnswerMeaning", "Reply", "Send", "Shipper", "ShippingStatus", "interpret_answer"]

Send = Callable[[Batch, bytes], Awaitable[Reply]]
"""Ships a batch and its body. Raises OSError (TimeoutError among them) if the collector does not answer."""

RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX = 0.1, 30.0
"""Bounds of the pause after a failure, at first and at last; the pause itself is random."""
RETRY_AFTER_SECONDS_MAX = 300.0
"""Seconds of a Retry-After that are respected at most."""
SAVE_SECONDS = 1.0
PRUNE_SECONDS = 60.0
"""After this many seconds the watermark is saved while there is more to ship, and old batches are removed."""
LOGGED_FAILURES = 3
"""Failures in a row until the log reports them."""


class ShippingStatus(NamedTuple):
    """The state of shipping.

    `state`: "idle", all has arrived; "shipping"; "waiting", the last attempt failed and is repeated; "stopped", an
    operator must act. `why`: a sentence if it waits or has stopped, else empty. `since`: the Unix time of the state's
    beginning. `results`: how often each of RESULTS occurred since this shipper was created. `pending`: the batches that
    are not acknowledged (spool.py): `batches`, `values` (Σ over their rows), `since` (Unix seconds of the oldest, None
    without any).
    """

    state: str
    why: str
    since: float
    results: dict[str, int]
    pending: Pending


class Shipper:
    """Ships a spool. It lives in one event loop; `aside` runs reads and writes of the disk in a thread.

    `send`: over HTTP, `transport.HttpTransport`. `clock` is Unix time. A new `send` needs a new shipper.
    """

    def __init__(
        self,
        spool: Spool,
        send: Send,
        *,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        aside: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self._spool = spool
        self._send = send
        self._clock = clock
        self._random = chance or random.Random()
        self._aside = aside
        self._backlog = Backlog(spool, spool.watermark)
        self._ahead: deque[Parcel] = deque()
        self._failures = 0
        """Failed attempts since the last successful one."""
        self._returns = 0
        """Requests by the collector for earlier batches since its watermark last reached a new maximum."""
        self._doubted = 0
        """The last batch that the collector could not read."""
        self._results = dict.fromkeys(RESULTS, 0)
        self._state, self._why, self._since = "idle", "", clock()
        self._refused = False
        """True if an answer has stopped it for good, until an operator acts."""
        self._saved_at = self._pruned_at = -math.inf
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._stepped = asyncio.Event()
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(60.0)

    # ---- interface

    @property
    def status(self) -> ShippingStatus:
        """The present state of shipping; cheap, and without waiting."""
        return ShippingStatus(self._state, self._why, self._since, dict(self._results), self._spool.pending)

    def wake(self) -> None:
        """Wake up: there is a new batch. From the loop's thread."""
        self._woken.set()

    async def run(self) -> None:
        """Ship until cancelled; then the watermark is written. `send` is left open."""
        try:
            while True:
                self._woken.clear()
                seconds = await self.step()
                self._stepped.set()
                if seconds:
                    # A failed batch waits for its time, even if more is sealed meanwhile.
                    await _wait_for_event(self._woken if self._state == "idle" else self._hurried, seconds)
                    self._hurried.clear()
        finally:
            self._save()

    async def finish(self, seconds: float) -> bool:
        """Wait until `run` has shipped all, at most `seconds`; a stopped shipper is not waited for.

        Waiting batches are tried at once. Return whether all have arrived.
        """
        self._failures = 0
        self._woken.set()
        self._hurried.set()
        try:
            async with asyncio.timeout(seconds):
                while (self._spool.pending.batches or self._state != "idle") and not self._refused:
                    self._stepped.clear()
                    await self._stepped.wait()
                    if self._state == "stopped":
                        break
        except TimeoutError:
            pass
        return not self._spool.pending.batches

    # ---- steps

    async def step(self) -> float:
        """Do the next thing: one attempt to send, or nothing.

        Return the seconds to wait before the next step: 0 if there is more, infinity if it waits for `wake`. `run`
        repeats this, and so does a simulation.
        """
        if self._refused:
            return math.inf
        try:
            if not self._ahead and self._spool.pending.batches:
                self._ahead.extend(await self._aside(self._backlog.read_parcels))
            await self._save_and_prune()
        except DamagedSpoolError as error:
            self._set_state("stopped", str(error))
            return RETRY_SECONDS_MAX  # An operator may discard it meanwhile.
        except OSError as error:
            return self._retry_later(f"the spool cannot be read: {error}")
        if not self._ahead:
            self._set_state("idle")
            return math.inf
        return await self._ship(self._ahead[0])

    async def _ship(self, parcel: Parcel) -> float:
        """Make one attempt; returns as `step` does."""
        if self._state != "waiting":
            self._set_state("shipping")
        try:
            reply = await self._send(parcel.batch, parcel.body)
        except OSError as error:
            self._results["unreachable"] += 1
            return self._retry_later(f"nobody answers: {str(error) or type(error).__name__}")
        last = self._spool.last
        assert last is not None
        answer = interpret_answer(reply, parcel.batch, last.seq)
        self._results[answer.result] += 1
        if answer.result == "quarantined" and self._doubted != parcel.batch.seq:
            # A batch that was garbled on its way counts once it comes whole: it is sent once more.
            self._doubted = parcel.batch.seq
            return 0.0
        if answer.act is Act.STOP:
            self._refused = True
            self._set_state("stopped", answer.why)
            return math.inf
        if answer.act is Act.AGAIN:
            return self._retry_later(answer.why, answer.retry_after)
        return await self._advance(parcel, answer)

    async def _advance(self, parcel: Parcel, answer: AnswerMeaning) -> float:
        """Continue after the collector's watermark."""
        seconds = 0.0
        if answer.watermark > self._spool.most:
            self._returns = 0
        if answer.watermark == parcel.passed.seq:
            self._spool.acknowledge(parcel.passed)
            self._ahead.popleft()
        else:
            is_back = answer.watermark < self._spool.watermark
            try:
                await self._aside(self._move_watermark, answer.watermark)
            except OSError as error:
                return self._retry_later(f"the watermark cannot be moved: {error}")
            if is_back:
                # Two collectors under one address would move it back and forth for ever.
                seconds = self._choose_pause_seconds(self._returns) if self._returns else 0.0
                self._returns += 1
                self._log.warning("the collector lacks what it had", why=answer.why, sent=parcel.batch.seq)
        if answer.result in ("gap", "quarantined"):
            why = answer.why or (parcel.batch.gap.why if parcel.batch.gap is not None else "")
            log_fields = {"first": parcel.batch.seq, "last": parcel.batch.last, "why": why}
            self._log.error("batches are not counted", what=answer.result, **log_fields)
        if self._failures >= LOGGED_FAILURES:
            self._log.info("shipping goes on", batch=parcel.batch.seq)
        self._failures = 0
        self._set_state("shipping")
        return seconds

    def _move_watermark(self, seq: int) -> None:
        """Move the watermark, and continue from there. Raises OSError."""
        self._spool.acknowledge(find_position(self._spool, seq))
        self._backlog = Backlog(self._spool, seq)
        self._ahead.clear()

    async def _save_and_prune(self) -> None:
        """Save the watermark to disk and remove old batches, both at intervals."""
        now = self._clock()
        # `abs`: the clock may have been set back.
        if not self._ahead or abs(now - self._saved_at) >= SAVE_SECONDS:
            self._saved_at = now
            if self._spool.is_unsaved:
                await self._aside(self._save)
        if abs(now - self._pruned_at) >= PRUNE_SECONDS:
            self._pruned_at = now
            try:
                await self._aside(self._spool.prune, now)
            except OSError as error:
                self._rare_log.error("what was shipped cannot be removed", str(self._spool.folder), why=str(error))

    def _save(self) -> None:
        try:
            self._spool.save()
        except OSError as error:
            # The next supervisor ships it again, and it counts once.
            self._rare_log.error("the watermark cannot be written", str(self._spool.folder), why=str(error))

    # ---- state

    def _retry_later(self, why: str, retry_after: float | None = None) -> float:
        """Record a failed attempt. Return the seconds until the next."""
        seconds = self._choose_pause_seconds(self._failures) + min(retry_after or 0.0, RETRY_AFTER_SECONDS_MAX)
        self._failures += 1
        if self._failures == LOGGED_FAILURES:
            self._log.warning("shipping waits", why=why)
        self._set_state("waiting", why)
        return seconds

    def _choose_pause_seconds(self, times: int) -> float:
        """Return the seconds before the next attempt after `times` failed ones: random, up to a bound that doubles each
        time.
        """
        # The exponent is held down so that a collector that is gone for a year does not overflow a float.
        return self._random.uniform(0.0, min(RETRY_SECONDS_MAX, RETRY_SECONDS_FIRST * 2 ** min(times, 16)))

    def _set_state(self, state: str, why: str = "") -> None:
        if state == "stopped" and (self._state, self._why) != (state, why):
            self._log.error("shipping has stopped", why=why)
        if state != self._state:
            self._state, self._since = state, self._clock()
        self._why = why


async def _wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for at most this many seconds."""
    try:
        async with asyncio.timeout(None if seconds == math.inf else seconds):
            await event.wait()
    except TimeoutError:
        pass
