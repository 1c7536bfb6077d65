"""Look-ups, through the supervisor, of keys that are in none of the edge's files.

The first request with such a key waits here for at most one second, together with all others that have the key; the
supervisor is asked once for each key. The number of pending look-ups is bounded, so that clients with invalid keys keep
neither the supervisor nor this worker from serving clients with valid ones. Each address has a share of them
(base/shares.py), so one client with invalid keys keeps no other from having its key looked up.
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
from edgeproxy.edge.proxy.supervisor_requests import CoalescingSender, Waiter, resume_waiter

if TYPE_CHECKING:
    from jwt import PyJWK

WAIT_SECONDS_MAX = 1.0
"""Seconds that a request waits at most."""
PENDING_KEYS_MAX = 1024
"""Keys that are asked for at a time; as many again may be that were known before."""
ADDRESS_SHARE = 1 / 5
"""The fraction of pending look-ups that one address, or a /64 of IPv6, gets at most."""
LOG_SECONDS = 10.0
"""Seconds between two log lines about the share of one address."""
KEYS_MAX = 16_384
"""Keys of which it is remembered whose they are, and as many of which it is that nobody has them."""
ISSUER_REQUEST_SECONDS = 5.0
"""Seconds in which the supervisor is told no more than once that an issuer has other keys."""
UNKNOWN_SECONDS = 10.0
"""Seconds for which nobody is asked again for a key that nobody has. What changes in the directory is heard of."""
FOREVER = float("inf")
MUTE_SECONDS = 0.5
"""Seconds for which a supervisor is not asked again that cannot tell."""


class CachedOwner(NamedTuple):
    """The owner of a key, and the monotonic time at which that was told. None: it was known, and is to be asked
    anew."""

    owner: KeyOwner | None
    fetched_at: float


class DirectoryValidity:
    """Until when what was told of customers counts, by residency, in edge time; after it nobody of it is served."""

    def __init__(self) -> None:
        self._until = {"": FOREVER}
        self.first = FOREVER
        """When the first directory is too old."""
        self.last = FOREVER
        """When all of them are."""

    def update(self, residency: str, until: float) -> bool:
        """Set until when the directory of a residency counts; return whether that was later before."""
        before, self._until[residency] = self.get(residency), until
        self.first, self.last = min(self._until.values()), max(self._until.values())
        return until < before

    def get(self, residency: str) -> float:
        """Return until when the directory of a residency counts."""
        return self._until.get(residency, FOREVER)


class KeyLookup:
    """The owners of keys of the directory that one worker knows. `offer` sends its supervisor a message."""

    def __init__(self, offer: Callable[[LookUpKeys | FetchIssuerKeys], bool]) -> None:
        """`offer` returns False where the message was not taken, as the one before is still to be read."""
        self._offer = offer
        self._outbox = CoalescingSender(offer, self._collect_questions, self._on_sent)
        self._owners: OrderedDict[bytes, CachedOwner] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        """Keys that nobody has, until when that is believed; by their digest, as all here."""
        self._waiting: dict[bytes, dict[Waiter, asyncio.TimerHandle]] = {}
        """The keys that the supervisor was asked for and has not answered, and who waits for each."""
        self._places = Places(PENDING_KEYS_MAX)
        self._claims: dict[bytes, Claim] = {}
        """The places of keys that were not known before, by their digest."""
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self._questions_due: list[bytes] = []
        self._mute_until = 0.0
        self._generation = 0
        """The generation of the last word to forget: what was looked up before that is not remembered after it."""
        self._issuer_requests: dict[str, float] = {}
        """Issuers whose keys were asked for before it is time, and the monotonic time of that."""
        self.issuer_keys: dict[str, list[PyJWK]] = {}
        """The public keys of those who issue tokens, by name."""
        self.flags: dict[str, dict[str, Flag]] = {"": {}}
        """The flags of the directory of each residency, by name."""
        self.validity = DirectoryValidity()

    def on_supervisor_lost(self) -> None:
        """Let everybody decide anew who waits: whose key is known goes on, and nobody else can be."""
        self._outbox.closed = True
        for digest in tuple(self._waiting):
            self._resume_waiting(digest)

    # ---- what is known

    def find_owner(self, digest: bytes) -> CachedOwner | None:
        """Return the owner of a key, as last told; None where the supervisor has to be asked."""
        known = self._owners.get(digest)
        if known is None or known.owner is None:
            return None
        self._owners.move_to_end(digest)
        return known

    def is_unknown(self, digest: bytes) -> bool:
        """Return whether it was told a moment ago that nobody has this key."""
        until = self._unknown.get(digest)
        if until is None:
            return False
        if until > monotonic():
            return True
        del self._unknown[digest]
        return False

    def forget_customers(self, customers: Collection[str] | None, generation: int = 0) -> None:
        """Forget what was told of these customers; None: of anybody."""
        self._generation = max(self._generation, generation)
        self._unknown.clear()
        for digest, (person, _) in self._owners.items():
            if person is not None and (customers is None or person.name in customers):
                self._owners[digest] = CachedOwner(None, 0.0)

    def request_issuer_keys(self, issuer: str) -> None:
        """Request the keys of an issuer, by its name, of which a token is signed with a key that is not known."""
        now = monotonic()
        if self._issuer_requests.get(issuer, float("-inf")) <= now - ISSUER_REQUEST_SECONDS and self._offer(
            FetchIssuerKeys(issuer)
        ):
            self._issuer_requests[issuer] = now

    # ---- who is asked for

    def compute_wait_seconds(self, since: float) -> float:
        """Return the seconds that a request may still wait that has come at `since` (monotonic)."""
        return since + WAIT_SECONDS_MAX - monotonic()

    def look_up(
        self,
        digest: bytes,
        who: Waiter | None = None,
        seconds: float = WAIT_SECONDS_MAX,
        *,
        subject: bytes = b"",
        address: str = "",
    ) -> bool:
        """Request a key's owner, and let a request wait for it for at most `seconds`.

        A key that was not known before takes from the share of `subject`, which is that of `address`. Return False if
        this is of no use: no answer can come, or too many look-ups are pending.
        """
        if self._outbox.closed or seconds <= 0 or monotonic() < self._mute_until:
            return False
        waiting = self._waiting.get(digest)
        if waiting is None:
            if digest in self._owners:
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
        """Take a place for a key that was not known before; return False where the share of the subject is used up."""
        claim = (Share(subject.hex(), ADDRESS_SHARE),)
        if self._places.find_exhausted(claim) is not None:
            self._log.error("a key is not looked up: too many others are, for its address or for all", address)
            return False
        self._places.take(claim)
        self._claims[digest] = claim
        return True

    def _collect_questions(self) -> LookUpKeys:
        """Return the keys that the supervisor is to be asked for, as one message."""
        return LookUpKeys(self._questions_due.copy())

    def _on_sent(self) -> None:
        self._questions_due.clear()

    def remove_waiter(self, digest: bytes, who: Waiter) -> None:
        """Remove a request that waits no more."""
        over = self._waiting.get(digest, {}).pop(who, None)
        if over is not None:
            over.cancel()

    def _time_out(self, digest: bytes, who: Waiter) -> None:
        self.remove_waiter(digest, who)
        who.resume()

    def on_answer(self, answer: KeysLookedUp) -> None:
        """Take over the supervisor's answer, and let those go on who wait for it."""
        now = monotonic()
        if answer.generation < self._generation and (answer.known or answer.unknown):
            # Looked up before something changed: whoever waits is told what is so now.
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
