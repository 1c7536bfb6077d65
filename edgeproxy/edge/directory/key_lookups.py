"""The answers to workers' questions for the owners of keys, from the directories on the supervisor's disk."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import monotonic
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.config.directory import KeyOwner
from edgeproxy.edge.messages import KeysLookedUp, LookUpKeys
from edgeproxy.edge.metrics import Series

REST_SECONDS_MAX = 0.1
"""Maximum of seconds of rest after a look-up. The rest is as long as the look-up took, so a flood of unknown keys gets
at most half of the time.
"""
LOG_QUIET_SECONDS = 60.0
"""Seconds between two log lines about one kind of fault."""

Reply = Callable[[KeysLookedUp], None]


class KeyOwners(NamedTuple):
    """The owners of keys: None for a key without an owner. A key is missing if its owner cannot be told now.

    `generation`: of the last order to forget before the look-up.
    """

    owners: Mapping[bytes, KeyOwner | None]
    generation: int = 0


NOBODY_CAN_TELL = KeyOwners({})
"""The answer if no directory can be read."""


class KeyLookups:
    """The look-ups of one supervisor's workers."""

    def __init__(
        self,
        find_owners: Callable[[Collection[bytes]], Awaitable[KeyOwners]],
        used: Callable[[Mapping[bytes, KeyOwner]], None],
    ) -> None:
        """`used` is called with the keys in use and their owners."""
        self._find_owners = find_owners
        self._record_used = used
        self._pending: list[tuple[list[bytes], Reply]] = []
        self._counts: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._log = log.RateLimitedLog(LOG_QUIET_SECONDS)

    def queue(self, message: LookUpKeys, reply: Reply) -> None:
        """Queue a worker's question for the owners of keys (edge/proxy/routing/key_lookup.py); each gets one answer."""
        self._pending.append((message.digests, reply))
        self._wake.set()

    def refuse(self, message: LookUpKeys, reply: Reply) -> None:
        """Answer that the owners cannot be told, because no directory is followed."""
        self._reply([(message.digests, reply)], NOBODY_CAN_TELL)

    def refuse_pending(self) -> None:
        """Answer all waiting questions that the owners cannot be told."""
        pending, self._pending = self._pending, []
        self._reply(pending, NOBODY_CAN_TELL)

    async def run(self) -> None:
        """Answer the queued look-ups together, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            pending, self._pending = self._pending, []
            began, owners = monotonic(), NOBODY_CAN_TELL
            try:
                owners = await self._find_owners({digest for digests, _ in pending for digest in digests})
            except Exception as error:  # Later questions must still be answered.
                self._log.error("keys could not be looked up", repr(error), exc_info=error)
            finally:
                self._reply(pending, owners)
            await asyncio.sleep(min(REST_SECONDS_MAX, monotonic() - began))

    def _reply(self, pending: list[tuple[list[bytes], Reply]], owners: KeyOwners) -> None:
        for digests, reply in pending:
            reply(self._build_answer(digests, owners))

    def _build_answer(self, digests: list[bytes], answer: KeyOwners) -> KeysLookedUp:
        """Build the answer to a worker."""
        owners = answer.owners
        known = {digest: owner for digest in digests if (owner := owners.get(digest)) is not None}
        unknown = [digest for digest in digests if digest in owners and digest not in known]
        untold = [digest for digest in digests if digest not in owners]
        self._record_used(known)
        self._counts.update(known=len(known), unknown=len(unknown), untold=len(untold))
        return KeysLookedUp(known, unknown, untold, answer.generation)

    def series(self) -> list[Series]:
        """Return the metric of look-ups."""
        return [
            ("edge_directory_lookups_total", (result,), (self._counts[result],))
            for result in ("known", "unknown", "untold")
        ]
