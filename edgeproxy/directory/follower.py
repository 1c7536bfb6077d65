"""Customers from the hub: the directory is followed there, kept on this host's disk, and told to workers who ask.

Nobody waits for the hub. A worker that meets a key asks this supervisor, which looks into the file (cached.py); while
the hub is away the file is what is known, with its age for all to see. A hub that has forgotten everything says nothing
about customers: they stay until somebody pushes.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from edgeproxy import log
from edgeproxy.config.directory import KeyOwner, KnownCustomer, customer_of
from edgeproxy.config.models import Settings
from edgeproxy.directory import versions
from edgeproxy.directory.cache import Cache, Error, Held, Outdated, Survey, is_damage
from edgeproxy.directory.versions import Ask, Unreadable
from edgeproxy.hub.redis import Away, reason
from edgeproxy.messages import ForgetCustomers, KeysLookedUp, LookUpKeys
from edgeproxy.metrics import Series
from edgeproxy.tasks import Tasks

POLL_SECONDS = 2.0
"""Seconds between two looks at the hub, a fifth of it more or less."""
FIRST_POLL_SECONDS = 0.2
"""Seconds until the next look of an edge that knows no customer yet, and once after a look that failed."""
PROGRESS_SECONDS = 3.0
"""Seconds that such an edge waits for the directory, or for more of it to come, before it serves."""
FIRST_READ_SECONDS = 45.0
"""Seconds after which it waits for no more: service managers give an edge a minute to begin."""
NOTE_SECONDS = 60.0
"""Seconds between two notes on disk of when the hub was last heard."""
REST_SECONDS_MAX = 0.1
"""Seconds of rest after looking keys up, which otherwise is as long as that took: a flood of unknown keys gets half of
the time at most."""
LOG_QUIET_SECONDS = 60.0
"""Seconds between two log lines about the same thing that must not happen."""
NAMES_LOGGED_MAX = 5
"""Customers who are named in a line of the log."""
FAILURES_BEFORE_BACKOFF = 3
"""Times that it cannot be read, not for want of a hub, until it is tried more rarely."""
POLL_SECONDS_MAX = 30.0
"""Seconds between two such attempts at most."""

Reply = Callable[[KeysLookedUp], None]


class Follower:
    """The directory of one supervisor. `ask` asks the hub, `tell` tells all workers, each message after the others."""

    def __init__(self, state: Path, settings: Settings, ask: Ask, tell: Callable[[ForgetCustomers], None]) -> None:
        self._state = state
        self._settings = settings
        self._ask = ask
        self._tell = tell
        self._cache: Cache | None = None
        self._held: Held | None = None
        self._survey = Survey([], [], {})
        self._noted = 0.0
        self._damaged = False
        self._why: str | None = "not read yet"
        self._is_told = False
        """Whether the log says so, or is not to."""
        self._told_at = -LOG_QUIET_SECONDS
        """When the log said why it is behind, since it was current."""
        self._changes = 0
        """How often workers were told to forget."""
        self._parts = 0
        """How many parts of versions were read."""
        self._under_way: str | None = None
        """What is being read."""
        self._asked: list[tuple[list[bytes], Reply]] = []
        self._lookups: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()
        """It is known who there is, or that this will take a while."""
        self._tasks = Tasks()
        self._running = False
        self._log = log.get()
        self._seldom = log.Seldom(LOG_QUIET_SECONDS)

    # ---- its life

    async def begin(self) -> None:
        """Follow the directory, if the configuration has one; returns once it is known who there is, or after a while
        in which nothing came."""
        if self._settings.directory is None:
            return
        self._running = True
        self._why, self._is_told = "not read yet", False
        self._looked.clear()
        self._tasks.start("directory", self._follow())
        self._tasks.start("look keys up", self._answer())
        until = monotonic() + FIRST_READ_SECONDS
        while not self._looked.is_set():
            read = self._parts
            try:
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await self._looked.wait()
            except TimeoutError:
                if not self._running:
                    return  # A reload has taken it away meanwhile.
                if self._parts == read or monotonic() > until:
                    told = "the directory was not read yet; its customers are served once it is"
                    self._log.error(told, why=self._under_way or self._why)
                    self._looked.set()

    async def follow(self, settings: Settings) -> None:
        """Another configuration serves."""
        self._settings = settings
        if (settings.directory is not None) != self._running:
            await self.end()
            await self.begin()
        elif self._running:
            await self._look_around()

    async def end(self) -> None:
        """Follow it no more."""
        self._running = False
        await self._tasks.cancel()
        self._reply(self._asked, None)
        self._asked = []
        cached, self._cache, self._held = self._cache, None, None
        if cached is not None:
            await asyncio.to_thread(cached.close)

    # ---- the hub

    async def _follow(self) -> None:
        """For ever, know what the hub has."""
        in_vain = 0
        while True:
            try:
                await self._look()
            except (Away, ResponseError, Unreadable, Outdated, ValueError, Error, OSError) as why:
                self._has_failed(why)
                in_vain = 0 if isinstance(why, Away) else in_vain + 1
            except Exception as unforeseen:  # It is followed for as long as the edge serves, whatever is in the hub.
                self._seldom.error("the directory could not be read", repr(unforeseen), exc_info=unforeseen)
                self._is_behind(repr(unforeseen))
                in_vain += 1
            else:
                self._looked.set()
                in_vain = 0
            new_trouble = self._why is not None and not self._is_told
            pause = FIRST_POLL_SECONDS if self._held is None or new_trouble else POLL_SECONDS
            if in_vain > FAILURES_BEFORE_BACKOFF:
                # What cannot be taken in would be read in full each time, by every edge.
                pause = min(POLL_SECONDS_MAX, POLL_SECONDS * 2 ** min(in_vain - FAILURES_BEFORE_BACKOFF, 16))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _look(self) -> None:
        """Take in what is new in the hub."""
        cached = self._cache
        if cached is not None and self._damaged:
            await self._remake(cached)
        if cached is None:
            cached = self._cache = await asyncio.to_thread(Cache, self._state)
            self._held = await asyncio.to_thread(cached.held)
            await self._look_around()
            if self._held is not None:
                self._looked.set()
        there = await asyncio.to_thread(cached.held)
        if there is None or self._held is None or there.token != self._held.token:
            # Another supervisor on this state directory has read it.
            await self._take_over(there, None)
        newest = await versions.last(self._ask)
        held = self._held
        if newest is None:
            lost = "it has lost the directory, and what was known counts on" if held else "nobody has pushed to it"
            self._is_behind(f"the hub has no directory: {lost}; see `edgeproxy directory push`")
        elif held is None or newest.token != held.token:
            await self._read(cached, held)
        else:
            await self._is_current(cached)

    async def _read(self, cached: Cache, held: Held | None) -> None:
        """Read the versions that follow the one held, and have them count, all at once."""
        token = None if held is None else held.token
        began = monotonic()
        newer = versions.after(await versions.log(self._ask), token)
        writing = await asyncio.to_thread(cached.write, token)
        try:
            for version in newer:
                self._under_way = f"version {version.number} is being read"
                if version.whole:
                    await asyncio.to_thread(writing.begin_whole)
                async for part in versions.parts(self._ask, version):
                    await asyncio.to_thread(writing.take, part)
                    self._parts += 1
                if version.whole:
                    await asyncio.to_thread(writing.end_whole)
            if not newer:
                raise Unreadable("the directory has changed while it was read")
            last, now = newer[-1], time.time()
            new = Held(last.token, last.number, last.at, now, last.customers, last.keys)
            await asyncio.to_thread(writing.conclude, new)
        except BaseException:
            await asyncio.to_thread(writing.drop)
            raise
        finally:
            self._under_way = None
        await self._take_over(new, writing.changed)
        seconds = round(monotonic() - began, 3)
        self._log.info("directory read", version=new.number, customers=new.customers, keys=new.keys, seconds=seconds)
        await self._is_current(cached)

    async def _take_over(self, held: Held | None, changed: set[str] | None) -> None:
        """This is what counts from here on. `changed`: the customers who are not as they were; None: any may be."""
        if held == self._held:
            return
        self._held = held
        self._changes += 1
        self._tell(ForgetCustomers(None if changed is None else sorted(changed)))
        await self._look_around()

    async def _is_current(self, cached: Cache) -> None:
        """The hub has what is known here."""
        held = self._held
        assert held is not None
        now = time.time()
        self._held = held._replace(heard_at=now)
        if self._why is not None:
            self._log.info("the directory is followed", version=held.number, customers=held.customers)
            self._why, self._told_at = None, -LOG_QUIET_SECONDS
        if monotonic() - self._noted > NOTE_SECONDS:
            self._noted = monotonic()
            await asyncio.to_thread(cached.heard, now)

    def _has_failed(self, why: Exception) -> None:
        """The hub, or what is on the disk, cannot be read."""
        self._is_behind(reason(why) if isinstance(why, ResponseError) else str(why))
        self._damaged |= is_damage(why)

    def _is_behind(self, why: str) -> None:
        """It cannot be known whether the hub has what is known here. That is worth a line of the log once it lasts."""
        if why != self._why:
            self._why, self._is_told = why, False
            return
        if self._is_told:
            return
        self._is_told, now = True, monotonic()
        if now - self._told_at < LOG_QUIET_SECONDS:
            return  # A hub that is no Redis may give another reason each time.
        self._told_at = now
        held = self._held
        known = {} if held is None else {"version": held.number, "age_s": round(time.time() - held.heard_at)}
        self._log.warning("the directory cannot be followed; what is known of it counts", why=why, **known)

    async def _remake(self, cached: Cache) -> None:
        """The file cannot be read: begin anew with what the hub has."""
        self._log.error("the cached directory is damaged, and made anew")
        await asyncio.to_thread(cached.remake)
        self._damaged = False
        await self._take_over(None, None)

    async def _look_around(self) -> None:
        """What the directory and the files say of the same, and what it needs of them and is not there: tell it."""
        if self._cache is None or self._held is None:
            return
        settings = self._settings
        digests = [bytes.fromhex(key.sha256) for key in settings.keys]
        try:
            survey = await asyncio.to_thread(self._cache.survey, settings.customers, digests, settings.tiers.keys())
        except Error as why:
            self._is_behind(str(why))  # Nobody is served otherwise for that.
            return
        before, self._survey = self._survey, survey
        if survey.names and survey.names != before.names:
            told = {"customers": len(survey.names), "such_as": survey.names[:NAMES_LOGGED_MAX]}
            self._log.warning("customers are in the files and in the directory: what the files say counts", **told)
        if survey.keys and survey.keys != before.keys:
            shown = [digest.hex()[:8] for digest in survey.keys[:NAMES_LOGGED_MAX]]
            self._log.warning("keys are in the files and in the directory: what the files say counts", such_as=shown)
        if survey.tiers and survey.tiers != before.tiers:
            self._log.warning("customers of the directory have tiers that are not here: refused", tiers=survey.tiers)

    # ---- those who ask

    def asked(self, message: LookUpKeys, reply: Reply) -> None:
        """A worker asks whose keys these are (proxy/key_lookup.py); each question has one answer."""
        if not self._running:
            self._reply([(message.digests, reply)], None)
            return
        self._asked.append((message.digests, reply))
        self._wake.set()

    async def _answer(self) -> None:
        """For ever, answer those who ask, all who do at a time."""
        await self._looked.wait()
        while True:
            await self._wake.wait()
            self._wake.clear()
            asked, self._asked = self._asked, []
            began, found = monotonic(), None
            try:
                found = await self._find({digest for digests, _ in asked for digest in digests})
            except Exception as unforeseen:  # Others will ask too.
                self._seldom.error("keys could not be looked up", repr(unforeseen), exc_info=unforeseen)
            finally:
                self._reply(asked, found)
            await asyncio.sleep(min(REST_SECONDS_MAX, monotonic() - began))

    def _reply(self, asked: list[tuple[list[bytes], Reply]], found: dict[bytes, KeyOwner | None] | None) -> None:
        for digests, reply in asked:
            reply(self._answer_to(digests, found))

    async def _find(self, digests: Iterable[bytes]) -> dict[bytes, KeyOwner | None] | None:
        """Whose keys these are in the version that counts; None where that cannot be said."""
        while self._cache is not None and self._held is not None:
            changes = self._changes
            try:
                found = await asyncio.to_thread(self._cache.find, digests)
            except Error as why:
                self._has_failed(why)
                return None
            if changes == self._changes:
                return found
            # Workers were told to forget meanwhile, and must not be told what was before.
        return None

    def _answer_to(self, digests: list[bytes], found: Mapping[bytes, KeyOwner | None] | None) -> KeysLookedUp:
        """The answer to a worker."""
        known, unknown, untold = {}, [], []
        if found is None:
            untold = digests
        else:
            known = {digest: owner for digest in digests if (owner := found.get(digest)) is not None}
            unknown = [digest for digest in digests if digest not in known]
        self._lookups.update(known=len(known), unknown=len(unknown), untold=len(untold))
        return KeysLookedUp(known, unknown, untold)

    async def customer(self, name: str) -> KnownCustomer | None:
        """A customer of the directory; None where there is none. Raises ValueError where this edge cannot tell what
        holds them: this version does not understand what is said of them; and Error."""
        cached = self._cache
        if cached is None or self._held is None:
            return None
        try:
            found = await asyncio.to_thread(cached.customer, name)
        except Error as why:
            self._has_failed(why)
            raise
        return None if found is None else KnownCustomer(name, customer_of(found[0]), found[1])

    # ---- for those who look

    def report(self) -> dict[str, Any] | None:
        """What `GET /status` says of it; moments are Unix seconds. None where there is no directory."""
        if not self._running:
            return None
        said: dict[str, Any] = {"from": "hub", "state": "current" if self._why is None else "behind"}
        held = self._held
        if held is None:
            said |= {"state": "unknown", "version": None, "customers": 0, "keys": 0, "pushed_at": None, "age_s": None}
        else:
            said |= {"version": held.number, "customers": held.customers, "keys": held.keys}
            said |= {"pushed_at": held.pushed_at, "age_s": round(time.time() - held.heard_at, 3)}
        survey = self._survey
        said |= {"in_files": len(survey.names), "unknown_tiers": survey.tiers}
        return said if self._why is None else said | {"why": self._under_way or self._why}

    def series(self) -> list[Series]:
        """Its metrics."""
        if not self._running:
            return []
        held = self._held
        customers, keys, number = (0, 0, 0) if held is None else (held.customers, held.keys, held.number)
        unserved = sum(self._survey.tiers.values())
        counted: list[Series] = [
            ("edge_directory_lookups_total", (result,), (self._lookups[result],))
            for result in ("known", "unknown", "untold")
        ]
        if held is not None:
            counted.append(("edge_directory_age_seconds", (), (round(time.time() - held.heard_at),)))
        return [
            *counted,
            ("edge_directory_customers", (), (customers,)),
            ("edge_directory_keys", (), (keys,)),
            ("edge_directory_version", (), (number,)),
            ("edge_directory_unserved", (), (unserved,)),
        ]
