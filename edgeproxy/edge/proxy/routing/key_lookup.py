"""Look-ups, through the supervisor, of keys that are in none of the edge's files.

The first request with such a key waits here for at most one second, together with all others that have the key. The
worker asks the supervisor once for each key. The number of pending look-ups is bounded, so that clients with invalid
keys keep neither the supervisor nor this worker from serving clients with valid ones. Each address has a share of the
look-ups (base/shares.py), so one client with invalid keys does not block the look-ups of others.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.base import log
from edgeproxy.base.shares import Claim, Places, Share
from edgeproxy.config.customers import Flag
from edgeproxy.config.directory import KeyOwner
from edgeproxy.edge.messages import FetchIssuerKeys, KeysLookedUp, LookUpKeys
from edgeproxy.edge.proxy.routing.supervisor_requests import CoalescingSender, Waiter, resume_waiter

if TYPE_CHECKING:
    from jwt import PyJWK

WAIT_SECONDS_MAX = 1.0
"""Seconds that a request waits at most."""
PENDING_KEYS_MAX = 1024
"""Look-ups of new keys that may be pending. As many again may be pending for keys that were known before."""
ADDRESS_SHARE = 1 / 5
"""The fraction of pending look-ups that one address, or a /64 of IPv6, gets at most."""
LOG_SECONDS = 10.0
"""Seconds between two log lines about the share of one address."""
KEYS_MAX = 16_384
"""Cached keys with an owner, and as many cached keys without one."""
ISSUER_REQUEST_SECONDS = 5.0
"""Minimum of seconds between two messages to the supervisor that an issuer has new keys."""
UNKNOWN_SECONDS = 10.0
"""A key without an owner is not looked up again for this many seconds. Changes of the directory arrive as messages
anyway.
"""
FOREVER = float("inf")
MUTE_SECONDS = 0.5
"""For this many seconds, the worker does not ask a supervisor that could not answer."""


class CachedOwner(NamedTuple):
    """The owner of a key, and the monotonic time of that answer.

    None: the owner was known, and must be looked up again.
    """

    owner: KeyOwner | None
    fetched_at: float


class DirectoryValidity:
    """The validity of directory data by residency, in edge time. Customers of a residency are refused after it."""

    def __init__(self) -> None:
        self._until = {"": FOREVER}
        self.first = FOREVER
        """When the first directory becomes too old."""
        self.last = FOREVER
        """When all directories are too old."""

    def update(self, residency: str, until: float) -> bool:
        """Set the end of validity of a residency's directory. Return whether it was later before."""
        before, self._until[residency] = self.get(residency), until
        self.first, self.last = min(self._until.values()), max(self._until.values())
        return until < before

    def get(self, residency: str) -> float:
        """Return the end of validity of a residency's directory."""
        return self._until.get(residency, FOREVER)


class KeyLookup:
    """The owners of directory keys that one worker knows. `offer` sends a message to its supervisor."""

    def __init__(self, offer: Callable[[LookUpKeys | FetchIssuerKeys], bool]) -> None:
        """`offer` returns False if the message was not taken, because the supervisor has yet to read the previous
        one.
        """
        self._offer = offer
        self._outbox = CoalescingSender(offer, self._collect_questions, self._on_sent)
        self._owners: OrderedDict[bytes, CachedOwner] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        """Keys without an owner, and until when that is cached. These dictionaries are keyed by digest."""
        self._changed: dict[str, float] = {}
        """Changed customers, and the monotonic time of the change. Their owners of before must be looked up again."""
        self._unknown_since = 0.0
        """The monotonic time from which on keys without an owner are cached."""
        self._waiting: dict[bytes, dict[Waiter, asyncio.TimerHandle]] = {}
        """Keys with a pending look-up, and the requests that wait for each."""
        self._places = Places(PENDING_KEYS_MAX)
        self._claims: dict[bytes, Claim] = {}
        """The places of keys that were not known before, by their digest."""
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self._questions_due: list[bytes] = []
        self._mute_until = 0.0
        self._generation = 0
        """The generation of the last order to forget. Answers of earlier generations are not cached."""
        self._issuer_requests: dict[str, float] = {}
        """Issuers whose keys were requested early, and the monotonic time of the request."""
        self.issuer_keys: dict[str, list[PyJWK]] = {}
        """The public keys of token issuers, by issuer name."""
        self.flags: dict[str, dict[str, Flag]] = {"": {}}
        """The flags of each residency's directory, by name."""
        self.validity = DirectoryValidity()

    def on_supervisor_lost(self) -> None:
        """Let all waiting requests decide again. Those whose key is known go on; the others cannot be identified."""
        self._outbox.closed = True
        for digest in tuple(self._waiting):
            self._resume_waiting(digest)

    # ---- cached answers

    def find_owner(self, digest: bytes) -> CachedOwner | None:
        """Return the cached owner of a key; None if the supervisor must be asked."""
        known = self._owners.get(digest)
        if known is None or known.owner is None or known.fetched_at <= self._changed.get(known.owner.name, 0.0):
            return None
        self._owners.move_to_end(digest)
        return known

    def is_unknown(self, digest: bytes) -> bool:
        """Return whether a recent answer said that the key has no owner."""
        until = self._unknown.get(digest)
        if until is None:
            return False
        if until > monotonic() and until > self._unknown_since + UNKNOWN_SECONDS:
            return True
        del self._unknown[digest]
        return False

    def forget_customers(self, customers: Collection[str] | None, generation: int = 0) -> None:
        """Forget the cached owners of these customers; None: of all.

        A pass over all owners takes place once in so many changes as there may be owners.
        """
        self._generation = max(self._generation, generation)
        self._unknown_since = now = monotonic()
        if customers is not None and len(self._changed) + len(customers) <= KEYS_MAX:
            self._changed.update(dict.fromkeys(customers, now))
            return
        names = None if customers is None else {*customers, *self._changed}
        for digest, (person, _) in self._owners.items():
            if person is not None and (names is None or person.name in names):
                self._owners[digest] = CachedOwner(None, 0.0)
        self._changed.clear()

    def request_issuer_keys(self, issuer: str) -> None:
        """Request the keys of the issuer with this name, after a token was signed with an unknown key."""
        now = monotonic()
        if self._issuer_requests.get(issuer, float("-inf")) <= now - ISSUER_REQUEST_SECONDS and self._offer(
            FetchIssuerKeys(issuer)
        ):
            self._issuer_requests[issuer] = now

    # ---- look-ups

    def compute_wait_seconds(self, since: float) -> float:
        """Return the seconds that a request may still wait if it came at `since` (monotonic)."""
        return since + WAIT_SECONDS_MAX - monotonic()

    def look_up(
        self,
        digest: bytes,
        who: Waiter | None = None,
        seconds: float = WAIT_SECONDS_MAX,
        *,
        subject: bytes = b"",
        address: str = "",
        is_known: bool = False,
    ) -> bool:
        """Request a key's owner, and let the request `who` wait for it for at most `seconds`.

        The look-up of a new key uses the share of `subject`, which stands for `address`. With `is_known` the caller had
        an answer: there may be more identities than cached owners, and none competes with invented keys. Return False
        if the look-up is useless: no answer can come, or too many look-ups are pending.
        """
        if self._outbox.closed or seconds <= 0 or monotonic() < self._mute_until:
            return False
        waiting = self._waiting.get(digest)
        if waiting is None:
            if is_known or digest in self._owners:
                if len(self._waiting) >= 2 * PENDING_KEYS_MAX:
                    return False
            elif not self._take_place(digest, subject, address):
                return False
            waiting = self._waiting[digest] = {}
            self._questions_due.append(digest)
            self._outbox.schedule()
        if who is not None:
            waiting[who] = asyncio.get_running_loop().call_later(seconds, self._time_out, digest, who)
        return True

    def _take_place(self, digest: bytes, subject: bytes, address: str) -> bool:
        """Reserve a place for a new key. Return False if the share of the subject is exhausted."""
        claim = (Share(subject.hex(), ADDRESS_SHARE),)
        if self._places.find_exhausted(claim) is not None:
            self._log.error("a key is not looked up: too many others are, for its address or for all", address)
            return False
        self._places.take(claim)
        self._claims[digest] = claim
        return True

    def _collect_questions(self) -> LookUpKeys:
        """Return the keys to look up, as one message to the supervisor."""
        return LookUpKeys(self._questions_due.copy())

    def _on_sent(self) -> None:
        self._questions_due.clear()

    def remove_waiter(self, digest: bytes, who: Waiter) -> None:
        """Remove a request that no longer waits."""
        over = self._waiting.get(digest, {}).pop(who, None)
        if over is not None:
            over.cancel()

    def _time_out(self, digest: bytes, who: Waiter) -> None:
        self.remove_waiter(digest, who)
        who.resume()

    def on_answer(self, answer: KeysLookedUp) -> None:
        """Take over the supervisor's answer, and resume the requests that wait for it."""
        now = monotonic()
        if answer.generation < self._generation and (answer.known or answer.unknown):
            # This answer predates a change, so the keys are looked up again for the waiting requests.
            self._questions_due += [*answer.known, *answer.unknown]
            self._outbox.schedule()
            answer = KeysLookedUp({}, [], answer.untold)
        if answer.untold:
            self._mute_until = now + MUTE_SECONDS
        for digest, person in answer.known.items():
            self._owners[digest] = CachedOwner(person, now)
            self._owners.move_to_end(digest)
        for digest in answer.unknown:
            self._owners.pop(digest, None)
            self._unknown[digest] = now + UNKNOWN_SECONDS
        for memory in (self._owners, self._unknown):
            while len(memory) > KEYS_MAX:
                memory.popitem(last=False)
        for digest in (*answer.untold, *answer.known, *answer.unknown):
            self._resume_waiting(digest)

    def _resume_waiting(self, digest: bytes) -> None:
        if (claim := self._claims.pop(digest, None)) is not None:
            self._places.release(claim)
        for who, over in self._waiting.pop(digest, {}).items():
            over.cancel()
            resume_waiter(who, "its key")
