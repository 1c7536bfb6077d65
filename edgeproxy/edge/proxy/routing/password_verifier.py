"""Checks of users' passwords with bcrypt, which is slow on purpose: never in the loop, and never many at a time.

One check runs at a time, in a thread with a low priority, so it delays no other request. The queue is bounded, and
each address has a share of it (base/shares.py). Verdicts are cached for a while by a keyed hash of the password and of
its stored hash, so a changed file needs no clearing. `bcrypt` is imported only if a route has users.
"""

import asyncio
import hmac
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.base import log
from edgeproxy.base.shares import ALL, Claim, Places, Share
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.edge import problem_codes
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.routing.supervisor_requests import Waiter, resume_waiter

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.transport.address import Address

PENDING_MAX: Final = 32
"""Passwords that may wait for their check, or be checked."""
ADDRESS_SHARE: Final = 1 / 5
"""The fraction of them that one address, or a /64 of IPv6, gets at most."""
WAIT_SECONDS_MAX: Final = 5.0
"""Seconds that a request waits at most."""
ACCEPTED_SECONDS: Final = 300.0
"""A password that was right is not checked again for this many seconds."""
REFUSED_SECONDS: Final = 10.0
"""A password that was wrong is not checked again for this many seconds."""
VERDICTS_MAX: Final = 1024
"""Cached verdicts, of right passwords and as many of wrong ones. Each takes about 200 bytes."""
NICENESS: Final = 10
"""The niceness of the thread that checks: it gets a tenth of the time of one with the usual priority."""

LOG_SECONDS: Final = 60.0
"""Seconds between two log lines about checks that failed for one reason."""

Check = Callable[[bytes, bytes], bool]


class Question(NamedTuple):
    """A password to check against a hash. `is_user` is False if the hash only makes the check take its time."""

    digest: bytes
    """Identifies the question, without revealing the password."""
    password: bytes
    hashed: bytes
    is_user: bool


class PasswordVerifier:
    """The passwords that one worker checks. `check` compares a password with a hash."""

    def __init__(self, check: "Check | None" = None) -> None:
        self._check = check or check_password
        self._secret = secrets.token_bytes(32)
        self._accepted: OrderedDict[bytes, float] = OrderedDict()
        """The digests of right passwords, and until when (monotonic) they are cached."""
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._places = Places(PENDING_MAX)
        self._queue: OrderedDict[bytes, tuple[Question, Claim]] = OrderedDict()
        """Questions that wait, by digest."""
        self._waiting: dict[bytes, dict[Waiter, asyncio.TimerHandle]] = {}
        """The requests that wait for each question, also for the one that is being checked."""
        self._running: bytes | None = None
        self._log = log.RateLimitedLog(LOG_SECONDS)

    def create_question(self, users: "dict[bytes, bytes]", user: bytes, password: bytes) -> Question:
        """Return the question whether a user has this password.

        An unknown user is compared with the hash of one particular user. So the check takes as long as for a known
        user, whatever the costs of the hashes are.
        """
        hashed = users.get(user)
        is_user = hashed is not None
        if hashed is None:
            hashes = tuple(users.values())
            hashed = hashes[int.from_bytes(self._digest(user)[:8]) % len(hashes)]
        parts = (b"user" if is_user else b"nobody", user, hashed, password)
        return Question(self._digest(b"\0".join(parts)), password, hashed, is_user)

    def _digest(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, content, "sha256")

    def find_verdict(self, digest: bytes) -> bool | None:
        """Return whether the password of a question was right; None if it must be checked."""
        now = monotonic()
        for cache, verdict in ((self._accepted, True), (self._refused, False)):
            if cache.get(digest, 0.0) > now:
                return verdict
        return None

    def verify(self, question: Question, waiter: Waiter, started: float, address: "Address") -> None:
        """Queue a question, and resume the request `waiter`, which came at `started`, when there is a verdict.

        Raises RejectedError: 429 if too many passwords of the address wait, 503 if too many of all addresses do, or if
        the request has waited for too long.
        """
        seconds = started + WAIT_SECONDS_MAX - monotonic()
        waiting = self._waiting.get(question.digest)
        if waiting is None or seconds <= 0:
            claim = (Share(address.subject.hex(), ADDRESS_SHARE),)
            exhausted = ALL if seconds <= 0 else self._places.find_exhausted(claim)
            if exhausted is not None:
                raise _create_busy_error(exhausted)
            self._places.take(claim)
            self._queue[question.digest] = question, claim
            waiting = self._waiting[question.digest] = {}
            self._start_next()
        loop = asyncio.get_running_loop()
        waiting[waiter] = loop.call_later(seconds, self._time_out, question.digest, waiter)

    def remove_waiter(self, digest: bytes, waiter: Waiter) -> None:
        """Remove a request that no longer waits. A question without any is not checked."""
        waiting = self._waiting.get(digest, {})
        over = waiting.pop(waiter, None)
        if over is not None:
            over.cancel()
        if not waiting and digest in self._queue:
            self._places.release(self._queue.pop(digest)[1])
            del self._waiting[digest]

    def _time_out(self, digest: bytes, waiter: Waiter) -> None:
        self.remove_waiter(digest, waiter)
        waiter.resume()

    def _start_next(self) -> None:
        """Start the check that has waited longest, unless one is running."""
        if self._running is not None or not self._queue:
            return
        self._running, (question, claim) = self._queue.popitem(last=False)
        work = partial(_run_unhurried, self._check, question.password, question.hashed)
        run_in_thread("check a password", work).add_done_callback(partial(self._on_verdict, question, claim))

    def _on_verdict(self, question: Question, claim: Claim, ended: asyncio.Future[bool]) -> None:
        failure = None if ended.cancelled() else ended.exception()
        if failure is not None:
            self._log.error("a password could not be checked, and is refused", repr(failure))
        # A hash that bcrypt refuses lets no user in.
        is_right = not ended.cancelled() and failure is None and ended.result() and question.is_user
        cache, seconds = (self._accepted, ACCEPTED_SECONDS) if is_right else (self._refused, REFUSED_SECONDS)
        cache[question.digest] = monotonic() + seconds
        cache.move_to_end(question.digest)
        while len(cache) > VERDICTS_MAX:
            cache.popitem(last=False)
        self._places.release(claim)
        self._running = None
        self._start_next()
        for waiter, over in self._waiting.pop(question.digest, {}).items():
            over.cancel()
            resume_waiter(waiter, "the check of its password")


def _create_busy_error(exhausted: str) -> RejectedError:
    fields = b"Retry-After: 1\r\n"
    if exhausted == ALL:
        return RejectedError(503, "This edge checks too many passwords at the moment", close=False, fields=fields)
    why = "Too many passwords of this address are being checked"
    return RejectedError(429, why, close=False, fields=fields, code=problem_codes.PASSWORDS_EXCEEDED)


def check_password(password: bytes, hashed: bytes) -> bool:
    """Return whether a password has this bcrypt hash."""
    import bcrypt

    return bool(bcrypt.checkpw(password, hashed))


def _run_unhurried(check: Check, password: bytes, hashed: bytes) -> bool:
    """Check a password in a thread of its own, with a low priority."""
    with suppress(OSError):  # A sandbox may refuse it, and only Linux has priorities of threads.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    return check(password, hashed)
