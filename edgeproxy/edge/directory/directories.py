"""The directories of an edge, combined into one. A customer is in the directory of its residency; most edges have only
one.

Each is followed separately (follower.py), from its own collector, with its own trust and cache. If several have a key,
its owner is the customer of the residency named first, unless that entry says that the customer has moved. Then the key
belongs to the other residency as soon as that has it, so a moving customer is known throughout. Any other key in
several directories is a fault, which is counted and logged.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.customers import Flag
from edgeproxy.config.directory import KeyOwner, KnownCustomer, find_next_residency
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.directory.follower import DirectoryFollower
from edgeproxy.edge.directory.key_lookups import LOG_QUIET_SECONDS, KeyLookups, KeyOwners, Reply
from edgeproxy.edge.messages import DirectoryFlags, DirectoryValid, ForgetCustomers, LookUpKeys
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.usage.identity import get_chain_folder
from edgeproxy.wire.directory_versions import CallHub

GREATEST = {"edge_directory_age_seconds", "edge_directory_signed_age_seconds", "edge_directory_version"}
"""Metrics that are not added up over several directories."""


class Followed(NamedTuple):
    """The directory of a residency. `label` is its name, and empty for the edge's own."""

    name: str
    label: str
    follower: DirectoryFollower


class Directories:
    """All directories of one supervisor; without residencies only one."""

    def __init__(
        self,
        settings: EdgeSettings,
        ask: CallHub,
        tell: Callable[[ForgetCustomers], None],
        publish: Callable[[DirectoryValid | DirectoryFlags, str], None] = lambda message, subject: None,
        used: Callable[[Mapping[bytes, KeyOwner]], None] = lambda _: None,
    ) -> None:
        """`ask` sends commands to the hub. `tell` sends each message to all workers, one after another.

        `publish` also sends it to workers that start later, until the next message about that subject. `used` is called
        with the keys in use and their owners.
        """
        self._call_hub = ask
        self._send = tell
        self._publish = publish
        self._lookups = KeyLookups(self._find_owners, used)
        self._changes = 0
        """Number of forget messages to workers."""
        self._leaving: set[str] = set()
        """Customers that have moved to a directory that did not have them at their look-up."""
        self._conflicts = 0
        """Keys looked up that several directories have."""
        self._looked = asyncio.Event()
        """Set whenever another directory is known."""
        self._state = settings.state
        self._followed = [
            Followed(name, label, self._create_follower(label, each)) for name, label, each in list_views(settings)
        ]
        self._tasks = Tasks()
        self._log = log.RateLimitedLog(LOG_QUIET_SECONDS)

    def _create_follower(self, label: str, settings: EdgeSettings) -> DirectoryFollower:
        return DirectoryFollower(
            get_chain_folder(self._state, label),
            settings,
            self._call_hub,
            self._forget,
            partial(self._tell, label),
            self._looked.set,
        )

    def _forget(self, names: list[str] | None) -> None:
        self._changes += 1
        if names is not None:  # The changed directory may be the one that they have moved to.
            names = [*names, *self._leaving]
        self._leaving.clear()
        self._send(ForgetCustomers(names, self._changes))

    def _tell(self, label: str, message: DirectoryValid | DirectoryFlags) -> None:
        self._publish(replace(message, residency=label), label)

    # ---- their life

    async def begin(self, age: float = 0.0) -> None:
        """Follow the directories. Return once the customers are known, or after some time without progress.

        `age`: seconds since the process of the edge began.
        """
        self._tasks.start("look keys up", self._lookups.run())
        await asyncio.gather(*(self._begin(one, age) for one in self._followed))

    async def _begin(self, one: Followed, age: float) -> None:
        if one.label:
            get_chain_folder(self._state, one.label).mkdir(mode=0o700, parents=True, exist_ok=True)
        await one.follower.begin(age)

    def describe_lack(self) -> str | None:
        """Return why a starting edge knows no customer of its directories yet.

        None if it knows the customers of one, or has waited long enough to serve without them.
        """
        lacks = [one.follower.describe_lack() for one in self._followed]
        return None if None in lacks else lacks[0]

    async def follow(self, settings: EdgeSettings) -> None:
        """Take over the settings of another configuration."""
        before = {one.label: one for one in self._followed}
        views = list_views(settings)
        for label in before.keys() - {label for _, label, _ in views}:
            await before[label].follower.end()
            self._tell(label, DirectoryValid(None))
            self._forget(None)
        self._followed = [
            Followed(name, label, before[label].follower if label in before else self._create_follower(label, each))
            for name, label, each in views
        ]
        added = [one for one in self._followed if one.label not in before]
        for one, (_, label, each) in zip(self._followed, views, strict=True):
            if label in before:
                await one.follower.follow(each)
        await asyncio.gather(*(self._begin(one, 0.0) for one in added))

    async def end(self) -> None:
        """Stop following them."""
        await self._tasks.cancel()
        self._lookups.refuse_pending()
        for one in self._followed:
            await one.follower.end()

    # ---- look-ups

    def queue_lookup(self, message: LookUpKeys, reply: Reply) -> None:
        """Queue a worker's question for the owners of keys (edge/proxy/routing/key_lookup.py); each gets one answer."""
        if any(one.follower.is_running for one in self._followed):
            self._lookups.queue(message, reply)
        else:
            self._lookups.refuse(message, reply)

    async def _find_owners(self, digests: Collection[bytes]) -> KeyOwners:
        """Find the owners of keys in the current versions of all directories."""
        while not any(one.follower.has_looked for one in self._followed):
            self._looked.clear()
            await self._looked.wait()
        while True:
            changes, followed = self._changes, self._followed
            answers = await asyncio.gather(*(one.follower.find_owners(digests) for one in followed))
            if changes == self._changes:
                return KeyOwners(dict(self._merge(digests, followed, answers)), changes)
            # Workers were told to forget meanwhile, and must not get older data.

    def _merge(
        self,
        digests: Collection[bytes],
        followed: list[Followed],
        answers: Sequence[Mapping[bytes, KeyOwner | None] | None],
    ) -> Iterator[tuple[bytes, KeyOwner | None]]:
        """Yield each key with its owner.

        A key that no directory has is yielded only if all directories could answer.
        """
        for digest in digests:
            owners = {
                one.name: owner._replace(residency=one.label)
                for one, answer in zip(followed, answers, strict=True)
                if answer is not None and (owner := answer[digest]) is not None
            }
            if owners:
                yield digest, self._choose(owners)
            elif None not in answers:
                yield digest, None

    def _choose(self, owners: dict[str, KeyOwner]) -> KeyOwner:
        """Choose the owner of a key that these residencies have, in the order of the configuration."""
        if len(owners) == 1:
            (owner,) = owners.values()
            if find_next_residency(owner.customer) is not None:
                self._leaving.add(owner.name)
            return owner
        here = {name: owner for name, owner in owners.items() if find_next_residency(owner.customer) not in owners}
        if len(here) != 1:
            self._conflicts += 1
            names = list(owners)
            self._log.error("a key is in the directories of several residencies: the first counts", str(names))
        return next(iter((here or owners).values()))

    async def find_customer(self, name: str, residency: str | None = None) -> KnownCustomer | None:
        """Return a customer of the directories, or of one residency's directory; None if there is none.

        Raises CacheError, and ValueError if this version does not understand the customer's settings.
        """
        for one in self._followed:
            customer = await one.follower.find_customer(name) if residency in (None, one.label) else None
            if customer is not None:
                return customer
        return None

    # ---- status

    @property
    def flags(self) -> Mapping[str, Flag]:
        """The flags of the edge's own directory, by name."""
        return self._home.flags

    @property
    def _home(self) -> DirectoryFollower:
        return next(one.follower for one in self._followed if not one.label)

    def report(self) -> JsonObject | None:
        """Return the part of `GET /status` about the directory, moments in Unix seconds; None without a directory."""
        report = self._home.report()
        if report is None or len(self._followed) == 1:
            return report
        residencies: JsonObject = {one.name: one.follower.report() for one in self._followed}
        return {**report, "residencies": residencies, "conflicts": self._conflicts}

    def series(self) -> list[Series]:
        """Return the metrics of the directories: sums, and for ages and versions the maximum."""
        if not any(one.follower.is_running for one in self._followed):
            return []
        values: dict[str, list[int]] = {}
        for one in self._followed:
            for name, _, (value,) in one.follower.series():
                values.setdefault(name, []).append(value)
        merged: list[Series] = [
            (name, (), (max(value) if name in GREATEST else sum(value),)) for name, value in values.items()
        ]
        several: list[Series] = []
        if len(self._followed) > 1:
            several.append(("edge_directory_conflicts_total", (), (self._conflicts,)))
        return [*self._lookups.series(), *merged, *several]


def list_views(settings: EdgeSettings) -> list[tuple[str, str, EdgeSettings]]:
    """List the directories of a configuration: residency, label, and the settings as if it were the only one."""
    if not settings.residency:
        return [("", "", settings)]
    return [
        (
            name,
            "" if residency.home else name,
            settings.model_copy(update={"usage": residency.usage, "directory": residency.directory}),
        )
        for name, residency in settings.residency.items()
    ]
