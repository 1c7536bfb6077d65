"""A directory in one supervisor: followed in the hub or the collector, and kept on this host's disk.

Requests never wait for the hub or the collector. A worker that meets a new key asks its supervisor, which looks into
the file (key_lookups.py, cache.py). While both are away the file still counts, and its age is reported. A hub that has
lost everything has no information about customers: they stay until the next push. An unsigned or older version is
refused (lineage.py), and the known one stays valid until its newest signed time is too old.
"""

import asyncio
import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from time import monotonic

from edgeproxy.base import log
from edgeproxy.base.allocator import return_freed_memory
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.customers import Flag
from edgeproxy.config.directory import KeyOwner, KnownCustomer, parse_customer, parse_flag
from edgeproxy.config.edge.directory_settings import Directory
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.key_list import KeyList
from edgeproxy.edge.directory.cache import (
    CachedVersion,
    CacheError,
    Changes,
    DirectoryCache,
    OutdatedVersionError,
    Survey,
    is_damage_error,
)
from edgeproxy.edge.directory.collector_log import CollectorLog
from edgeproxy.edge.directory.key_lookups import LOG_QUIET_SECONDS
from edgeproxy.edge.directory.lineage import (
    AcceptedNews,
    OversizedLogError,
    RejectedVersionError,
    accept_news,
)
from edgeproxy.edge.directory.seal import load_seal
from edgeproxy.edge.directory.transport import Transport
from edgeproxy.edge.messages import DirectoryFlags, DirectoryValid
from edgeproxy.edge.metrics import Series
from edgeproxy.hub.errors import HubRefusalError, HubUnavailableError
from edgeproxy.wire import directory_versions
from edgeproxy.wire.directory_signatures import TrustedKeys
from edgeproxy.wire.directory_versions import CallHub, UnreadableDirectoryError

POLL_SECONDS = 2.0
"""Seconds between two polls at most, and a fifth less at least, unless a message announces news."""
FIRST_POLL_SECONDS = 0.2
"""Seconds until the next poll of an edge that knows no customer yet, and once after a failed poll."""
PROGRESS_SECONDS = 3.0
"""Seconds that such an edge waits for the directory, or for more of it to come, before it serves."""
FIRST_READ_SECONDS = 40.0
"""After this many seconds of its process it stops waiting, and is ready without the directory. Its workers then have
the rest of the documented 45 to start; service managers give an edge a minute to start.
"""
NOTE_SECONDS = 60.0
"""Seconds between two records on disk of the hub's last answer."""
NAMES_LOGGED_MAX = 5
"""Customers that are named in a line of the log."""
FAILURES_BEFORE_BACKOFF = 3
"""After this many failed reads, other than a missing hub, it is tried less often."""
POLL_SECONDS_MAX = 30.0
"""Maximum of seconds between two such attempts."""

PURGE_SECONDS = 2.0
"""Seconds between a version and the purge of the content that it replaced. One purge serves all versions meanwhile, and
its work is proportional to their writes.
"""
CLOCK_AHEAD_SECONDS_MAX = 300.0
"""Seconds that a signer's clock may be ahead of this host's."""

PUBLISHED = {"hub": "see `edgeproxy directory push`", "collector": "see `directory` of collector.yaml"}
"""The command or setting that publishes a directory."""


class DirectoryFollower:
    """One directory of one supervisor; `directories.py` has all of them. `state`: the folder of its cache."""

    def __init__(
        self,
        state: Path,
        settings: EdgeSettings,
        ask: CallHub,
        tell: Callable[[list[str] | None], None],
        publish: Callable[[DirectoryValid | DirectoryFlags], None],
        looked: Callable[[], None],
    ) -> None:
        """`ask` sends commands to the hub. `tell` tells all workers which customers to forget, None for all.

        `publish` also sends a message to workers that start later, until the next one. `looked` is called once the
        customers are known, or will take a while.
        """
        self._on_looked = looked
        self._state = state
        self._settings = settings
        self._call_hub = ask
        self._forget = tell
        self._publish = publish
        self._transport: Transport | None = None
        self._trust: TrustedKeys | None = None
        self._rejected: str | None = None
        """The reason why the present version was refused."""
        self._rejections = 0
        self._ahead_at = 0.0
        """The newest signed time that this host's clock had not reached."""
        self.flags: dict[str, Flag] = {}
        """The flags that this version understands, by name."""
        self._published_flags: dict[str, str] = {}
        """All flags, as workers got them."""
        self._cache: DirectoryCache | None = None
        self._held: CachedVersion | None = None
        self._survey = Survey([], [], {})
        self._surveyed: Survey | None = None
        """The survey of the present version and settings; None if the next one must read all customers."""
        self._surveys = 0
        """Number of surveys that have begun."""
        self._file_digests: frozenset[bytes] = frozenset()
        """The keys of the files at the last survey of all customers."""
        self._confirmed_at = 0.0
        self._damaged = False
        self._purge_at: float | None = 0.0
        """The monotonic time of the next purge of replaced content; None: there is none."""
        self._why: str | None = "not read yet"
        self._is_behind_logged = False
        """True if the log has this reason, or must not have it."""
        self._behind_logged_at = -LOG_QUIET_SECONDS
        """Time it was last logged as behind; reset when current."""
        self._parts = 0
        """Number of version parts read."""
        self._progress: str | None = None
        """Current read, if any."""
        self._looked = asyncio.Event()
        """Set once the customers are known, or will take a while."""
        self._tasks = Tasks()
        self._running = False
        self._ready_by = 0.0
        """Time until which an edge that starts is not ready without customers."""
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(LOG_QUIET_SECONDS)

    # ---- its life

    async def begin(self, age: float = 0.0) -> None:
        """Start to follow the directory when the edge starts: until its customers are known, the edge is not ready.

        `age`: seconds since the process of the edge began. On a busy host, its imports and files take some of the time.
        """
        self._ready_by = monotonic() + FIRST_READ_SECONDS - age
        await self._start(self._ready_by)

    def describe_lack(self) -> str | None:
        """Return why a starting edge knows no customer of its directory yet; None if it knows them.

        None too if it has waited long enough: it must serve customers in files and open routes.
        """
        if not self._running or self._held is not None or monotonic() >= self._ready_by:
            return None
        return f"the directory is not read yet: {self._progress or self._why}"

    async def _start(self, until: float) -> None:
        """Follow the directory, if the configuration has one.

        Return once its customers are known, after some time without progress, or soon after the monotonic time `until`.
        """
        directory = self._settings.directory
        if directory is None:
            return
        self._running = True
        self._trust = TrustedKeys(directory.trust) if directory.trust else None
        self._transport = self._open(directory)
        if self._trust is None:
            message = "the directory is not signed: who can write to the hub can make keys; see directory.trust"
            self._log.warning(message)
        self._why, self._is_behind_logged = "not read yet", False
        self._ahead_at = 0.0
        self._looked.clear()
        self._tasks.start("directory", self._follow())
        while not self._looked.is_set():
            read = self._parts
            try:
                async with asyncio.timeout(PROGRESS_SECONDS):
                    await self._looked.wait()
            except TimeoutError:
                if not self._running:
                    return  # A reload has removed it meanwhile.
                if self._parts == read or monotonic() > until:
                    message = "the directory was not read yet; its customers are served once it is"
                    self._log.error(message, why=self._progress or self._why)
                    self._record_looked()

    def _record_looked(self) -> None:
        self._looked.set()
        self._on_looked()

    def _open(self, directory: Directory) -> Transport:
        """Open the transport that the configuration names."""
        if directory.from_ == "collector":
            assert self._settings.usage is not None
            return CollectorLog(self._settings.usage, self._settings.region)
        from edgeproxy.edge.directory.hub_log import HubLog

        return HubLog(self._call_hub, self._settings.hub, self._trust)

    async def follow(self, settings: EdgeSettings) -> None:
        """Take over the settings of another configuration."""
        before, self._settings = self._settings, settings
        if self.describe_lack() is None:
            self._ready_by = 0.0  # A ready edge stays ready while it reads another directory.
        if _source_key(before) != _source_key(settings):
            await self.end()
            await self._start(monotonic() + FIRST_READ_SECONDS)
        elif self._running:
            self._publish_validity()
            # A second with 100,000 customers in files, and only the log and the status need it.
            self._tasks.start("survey of the directory", self._survey_files())

    async def end(self) -> None:
        """Stop following the directory."""
        self._running = False
        await self._tasks.cancel()
        self._rejected = None
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()
        cached, self._cache, self._held = self._cache, None, None
        await self._publish_flags()
        if cached is not None:
            await asyncio.to_thread(cached.close)

    # ---- versions

    async def _follow(self) -> None:
        """Read news until cancelled."""
        transport = self._transport
        assert transport is not None
        in_vain = 0
        while True:
            try:
                await self._fetch_and_apply(transport)
            except RejectedVersionError as error:
                self._reject(str(error))
                in_vain = in_vain + 1 if isinstance(error, OversizedLogError) else 0
            except (
                HubUnavailableError,
                HubRefusalError,
                UnreadableDirectoryError,
                OutdatedVersionError,
                ValueError,
                CacheError,
                OSError,
            ) as error:
                self._record_failure(error)
                in_vain = 0 if isinstance(error, HubUnavailableError) else in_vain + 1
            except Exception as error:  # Nothing in the hub may end the following of it.
                self._rare_log.error("the directory could not be read", repr(error), exc_info=error)
                self._record_behind(repr(error))
                in_vain += 1
            else:
                self._record_looked()
                in_vain = 0
            await self._purge()
            new_trouble = self._why is not None and not self._is_behind_logged
            pause = FIRST_POLL_SECONDS if self._held is None or new_trouble else POLL_SECONDS
            if in_vain > FAILURES_BEFORE_BACKOFF:
                # News that cannot be accepted would be read in full each time, by every edge.
                pause = min(POLL_SECONDS_MAX, POLL_SECONDS * 2 ** min(in_vain - FAILURES_BEFORE_BACKOFF, 16))
            pause *= random.uniform(0.8, 1.0)
            await (transport.wait_for_news(pause) if self._why is None else asyncio.sleep(pause))

    async def _fetch_and_apply(self, transport: Transport) -> None:
        """Read the news, and serve it."""
        cached = self._cache
        if cached is not None and self._damaged:
            await self._recreate_cache(cached)
        if cached is None:
            cached = self._cache = await self._open_cache()
            self._held = await asyncio.to_thread(cached.fetch_version)
            if self._held is not None and self._trust is not None and not self._held.verified:
                self._log.warning("the cached directory was read unsigned, and is read anew")
                await asyncio.to_thread(cached.recreate)
                self._held = None
            self._publish_validity()
            await self._publish_flags()
            await self._survey_files()
            if self._held is not None:
                self._record_looked()
        there = await asyncio.to_thread(cached.fetch_version)
        if there is None or self._held is None or there.token != self._held.token:
            # Another supervisor on this state directory has read it.
            await self._take_over(there, None)
        held = self._held
        news = await transport.fetch_news(None if held is None else held.token, 0 if held is None else held.number)
        if news.is_empty:
            lost = "it has lost the directory, and what was known counts on" if held else "nobody has pushed to it"
            self._record_behind(f"the {transport.name} has no directory: {lost}; {PUBLISHED[transport.name]}")
            return
        accepted = accept_news(held, news, self._trust)
        if news.lines:
            held = await self._read_versions(transport, cached, held, accepted)
        await self._record_current(cached, accepted.signed_at)

    async def _purge(self) -> None:
        """Remove the replaced content from the cache's files, some seconds after the first replacement."""
        if self._cache is None or self._purge_at is None or monotonic() < self._purge_at:
            return
        is_done = False
        with contextlib.suppress(CacheError, OSError):  # Another supervisor is writing a version, or the disk is full.
            is_done = await asyncio.to_thread(self._cache.purge)
        self._purge_at = None if is_done else monotonic() + PURGE_SECONDS

    def _clamp_signed_at(self, signed_at: float, now: float) -> float:
        """Return the Unix second of a signature, no later than `now`.

        A time far in the future, from a signer with a wrong clock, counts once, when it is first seen. Otherwise an
        attacker who repeated it to this edge could keep all news from it until then.
        """
        if signed_at <= now + CLOCK_AHEAD_SECONDS_MAX:
            return min(signed_at, now)
        if signed_at <= self._ahead_at:
            return 0.0
        self._ahead_at = signed_at
        return now

    async def _open_cache(self) -> DirectoryCache:
        """Open the cache with the configured key. Raises CacheError and OSError."""
        started: list[subprocess.Popen[bytes]] = []

        def open_now() -> DirectoryCache:
            return DirectoryCache(self._state, load_seal(self._settings.cache_key, started))

        try:
            return await asyncio.to_thread(open_now)
        finally:  # If the edge ends, neither it nor the command may stay until the command has ended.
            for process in started:
                process.kill()

    async def _read_versions(
        self, transport: Transport, cached: DirectoryCache, held: CachedVersion | None, accepted: AcceptedNews
    ) -> CachedVersion:
        """Read the versions that follow `held`, and make them valid all at once."""
        newer = accepted.versions
        began = monotonic()
        writing = await asyncio.to_thread(cached.begin_version, None if held is None else held.token)
        try:
            for version in newer:
                self._progress = f"version {version.number} is being read"
                if version.whole:
                    await asyncio.to_thread(writing.begin_whole)
                async for part in directory_versions.fetch_parts(transport.fetch_part, version):
                    await asyncio.to_thread(writing.write_lines, part)
                    self._parts += 1
                if version.whole:
                    await asyncio.to_thread(writing.end_whole)
            last, now = newer[-1], time.time()
            signed_at = self._clamp_signed_at(accepted.signed_at, now)
            new = CachedVersion(last.token, last.number, last.at, now, last.customers, last.keys)
            new = new._replace(hash=accepted.hash, signed_at=signed_at, verified=self._trust is not None)
            # A survey that runs now, or begins before the take-over, may be of either version.
            surveyed = None if self._surveyed is None else (self._surveyed, self._surveys)
            await asyncio.to_thread(writing.commit, new)
        except BaseException:
            await asyncio.to_thread(writing.discard)
            raise
        finally:
            self._progress = None
        if self._purge_at is None:
            self._purge_at = monotonic() + PURGE_SECONDS
        await self._take_over(new, writing.changed, surveyed)
        seconds = round(monotonic() - began, 3)
        self._log.info("directory read", version=new.number, customers=new.customers, keys=new.keys, seconds=seconds)
        return new

    async def _take_over(
        self, held: CachedVersion | None, changes: Changes | None, surveyed: tuple[Survey, int] | None = None
    ) -> None:
        """Serve this version from now on. `changes`: differences from the one before; None: any customer may differ.

        `surveyed`: the survey of the one before, and the number of surveys then. Raises CacheError; then the version is
        taken over at the next look.
        """
        if held == self._held:
            return
        before, self._held, self._surveyed = self._held, held, None
        self._forget(None if changes is None else sorted(changes.names))
        self._publish_validity()
        try:
            await self._publish_flags()
        except CacheError:
            self._held = before
            self._publish_validity()
            raise
        await self._survey_files(changes, surveyed)

    async def _record_current(self, cached: DirectoryCache, signed_at: float) -> None:
        """Record that this version is the newest, and was signed as such at this Unix second."""
        held = self._held
        assert held is not None
        now = time.time()
        signed_at = max(held.signed_at, self._clamp_signed_at(signed_at, now))
        self._held = held._replace(checked_at=now, signed_at=signed_at)
        self._rejected = None
        if signed_at > held.signed_at:
            self._publish_validity()
        if self._why is not None:
            self._log.info("the directory is followed", version=held.number, customers=held.customers)
            self._why, self._behind_logged_at = None, -LOG_QUIET_SECONDS
        if monotonic() - self._confirmed_at > NOTE_SECONDS:
            self._confirmed_at = monotonic()
            await asyncio.to_thread(cached.record_check, now, signed_at)

    def _publish_validity(self) -> None:
        """Send workers the end of the cache's validity."""
        directory, held = self._settings.directory, self._held
        most = None if directory is None or self._trust is None else directory.age_seconds_max
        self._publish(DirectoryValid(None if held is None or most is None else held.signed_at + most - EPOCH))

    async def _publish_flags(self) -> None:
        """Send workers the flags of the directory if they have changed."""
        flags = {} if self._cache is None else await asyncio.to_thread(self._cache.fetch_flags)
        if flags == self._published_flags:
            return
        self._published_flags, self.flags = flags, {}
        for name, flag in flags.items():
            with contextlib.suppress(ValueError):  # Workers log the others.
                self.flags[name] = parse_flag(flag)
        self._publish(DirectoryFlags(flags))

    def _reject(self, why: str) -> None:
        """Record why the newest version must not be served."""
        self._rejections += 1
        if why != self._rejected:
            self._rejected = why
            self._rare_log.error("a version of the directory was refused; what was known counts", why)
        self._record_behind(why)

    def _record_failure(self, why: Exception) -> None:
        """Record that the directory or the cache could not be read."""
        self._record_behind(str(why))
        self._damaged |= is_damage_error(why)

    def _record_behind(self, why: str) -> None:
        """Record why the version here may not be the newest. It is logged if that lasts."""
        if why != self._why:
            self._why, self._is_behind_logged = why, False
            return
        if self._is_behind_logged:
            return
        self._is_behind_logged, now = True, monotonic()
        if now - self._behind_logged_at < LOG_QUIET_SECONDS:
            return  # A hub that is not Redis may give another reason each time.
        self._behind_logged_at = now
        held = self._held
        known = {} if held is None else {"version": held.number, "age_s": round(time.time() - held.checked_at)}
        self._log.warning("the directory cannot be followed; what is known of it counts", why=why, **known)

    async def _recreate_cache(self, cached: DirectoryCache) -> None:
        """Replace a damaged cache; the directory is then read again."""
        self._log.error("the cached directory is damaged, and made anew")
        await asyncio.to_thread(cached.recreate)
        self._damaged = False
        await self._take_over(None, None)

    async def _survey_files(self, changes: Changes | None = None, surveyed: tuple[Survey, int] | None = None) -> None:
        """Log the customers and keys that are both in the directory and in the files, and the tiers that the files
        lack.

        With `changes` since a survey, only these are looked at, unless another survey has begun meanwhile.
        """
        settings = self._settings
        known = surveyed[0] if surveyed is not None and surveyed[1] == self._surveys else None
        self._surveyed = None
        self._surveys += 1
        number = self._surveys
        cache, digests_of_files = self._cache, self._file_digests
        if cache is None or self._held is None:
            return

        def survey_all() -> tuple[frozenset[bytes], Survey]:
            digests = frozenset(KeyList.from_keys(settings.keys).list_digests())
            survey = cache.survey(settings.customers, sorted(digests), settings.tiers.keys())
            return_freed_memory()  # The reload before it has returned what was free then.
            return digests, survey

        try:
            if changes is None or known is None:
                digests_of_files, survey = await asyncio.to_thread(survey_all)
            else:
                names = sorted(name for name in changes.names if name in settings.customers)
                digests = sorted(changes.digests & digests_of_files)
                overlap = await asyncio.to_thread(cache.find_overlap, names, digests)
                survey = known.follow(changes, overlap, settings.tiers.keys())
        except CacheError as error:
            self._record_behind(str(error))  # This changes nothing for clients.
            return
        if number != self._surveys:
            return  # Another survey has begun meanwhile, perhaps with other settings.
        self._surveyed, self._file_digests = survey, digests_of_files
        before, self._survey = self._survey, survey
        self._log_changed_survey(before, survey)

    def _log_changed_survey(self, before: Survey, survey: Survey) -> None:
        """Log what a survey has found, unless the one before found it."""
        if survey.names and survey.names != before.names:
            log_fields = {"customers": len(survey.names), "such_as": survey.names[:NAMES_LOGGED_MAX]}
            self._log.warning(
                "customers are in the files and in the directory: what the files say counts", **log_fields
            )
        if survey.keys and survey.keys != before.keys:
            shown = [digest.hex()[:8] for digest in survey.keys[:NAMES_LOGGED_MAX]]
            self._log.warning("keys are in the files and in the directory: what the files say counts", such_as=shown)
        if survey.tiers and survey.tiers != before.tiers:
            self._log.warning("customers of the directory have tiers that are not here: refused", tiers=survey.tiers)

    # ---- look-ups

    @property
    def is_running(self) -> bool:
        """True if a directory is followed."""
        return self._running

    @property
    def has_looked(self) -> bool:
        """True if the customers are known, or will take a while."""
        return self._looked.is_set()

    async def find_owners(self, digests: Collection[bytes]) -> Mapping[bytes, KeyOwner | None] | None:
        """Find the owners of keys in the current version; None if it cannot be read."""
        if self._cache is None or self._held is None:
            return None
        try:
            return await asyncio.to_thread(self._cache.find_owners, digests)
        except CacheError as error:
            self._record_failure(error)
            return None

    async def find_customer(self, name: str) -> KnownCustomer | None:
        """Return a customer of the directory; None if there is none.

        Raises CacheError, and ValueError if this version does not understand the customer's settings.
        """
        cached = self._cache
        if cached is None or self._held is None:
            return None
        try:
            row = await asyncio.to_thread(cached.find_customer, name)
        except CacheError as error:
            self._record_failure(error)
            raise
        return None if row is None else KnownCustomer(name, parse_customer(row[0], time.time()), row[1])

    # ---- status

    def report(self) -> JsonObject | None:
        """Return the part of `GET /status` about the directory, moments in Unix seconds; None without a directory."""
        if not self._running:
            return None
        directory = self._settings.directory
        status: JsonObject = {
            "from": "hub" if directory is None else directory.from_,
            "state": "current" if self._why is None else "behind",
            "signed": self._trust is not None,
            "refused": self._rejected,
        }
        held = self._held
        if held is None:
            status |= {"state": "unknown", "version": None, "customers": 0, "keys": 0, "pushed_at": None, "age_s": None}
        else:
            status |= {"version": held.number, "customers": held.customers, "keys": held.keys}
            status |= {"pushed_at": held.pushed_at, "age_s": round(time.time() - held.checked_at, 3)}
            if self._trust is not None:
                status["signed_age_s"] = round(time.time() - held.signed_at, 3)
        survey = self._survey
        status |= {"in_files": len(survey.names), "unknown_tiers": survey.tiers}
        return status if self._why is None else status | {"why": self._progress or self._why}

    def series(self) -> list[Series]:
        """Return the metrics of the directory."""
        if not self._running:
            return []
        held = self._held
        customers, keys, number = (0, 0, 0) if held is None else (held.customers, held.keys, held.number)
        unserved = sum(self._survey.tiers.values())
        counted: list[Series] = []
        if held is not None:
            counted.append(("edge_directory_age_seconds", (), (round(time.time() - held.checked_at),)))
        if held is not None and self._trust is not None:
            counted.append(("edge_directory_signed_age_seconds", (), (round(time.time() - held.signed_at),)))
        return [
            *counted,
            ("edge_directory_customers", (), (customers,)),
            ("edge_directory_keys", (), (keys,)),
            ("edge_directory_version", (), (number,)),
            ("edge_directory_unserved", (), (unserved,)),
            ("edge_directory_refused_total", (), (self._rejections,)),
        ]


def _source_key(settings: EdgeSettings) -> tuple[object, ...]:
    """Return the settings of the directory's source, and the trusted keys."""
    directory = settings.directory
    if directory is None:
        return ()
    transport = settings.hub if directory.from_ == "hub" else settings.usage
    return (directory.from_, directory.trust, settings.cache_key, transport)
