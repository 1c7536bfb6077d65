"""Health checks: what the probes of an address say together, and when each is probed.

`AddressHealth` decides, and knows neither clock nor network; `Health` asks.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.tls import UpstreamTls

TURN_PROBES = 2
"""Probes in a row that say the opposite of what an address is taken for, until it is believed."""


class ProbeTerms(NamedTuple):
    """How a target is probed: what is asked, how many seconds lie between two probes, over which TLS, of which Host."""

    path: str
    every: float
    tls: UpstreamTls
    host: str | None = None
    """None: that of the endpoint's URL."""


class ProbeTarget(NamedTuple):
    """What is probed: an address of an endpoint of an upstream, and how. Probed in another way it is another one."""

    upstream: str
    url: str
    address: str
    terms: ProbeTerms


class AddressHealth:
    """What the probes of one address said so far."""

    def __init__(self) -> None:
        self.up: bool | None = None
        """Whether it is well; None before the first probe has ended."""
        self.why = "not probed yet"
        """Why it is not well; empty where it is."""
        self._against = 0
        """Probes in a row that said the opposite of `up`."""

    def heard(self, failure: str | None) -> bool:
        """A probe failed for this reason, or passed (None); True where that turned the address.

        The first probe counts at once, whatever it says: nothing is known that it could contradict.
        """
        passed = failure is None
        if passed == self.up:
            self._against = 0
            self.why = failure or ""
            return False
        self._against += 1
        if self.up is not None and self._against < TURN_PROBES:
            return False
        self.up, self.why, self._against = passed, failure or "", 0
        return True


def select_usable(healths: list[AddressHealth]) -> list[bool]:
    """Which of a service's addresses may be used: those that are up.

    One that was not probed yet is used only where no other is known to be up: it may be the one that has just come,
    and is not ready, or one of many of which nothing is known because the edge has just started.
    """
    known = any(health.up for health in healths)
    return [bool(health.up) or (health.up is None and not known) for health in healths]


Probe = Callable[[ProbeTarget], Awaitable[str | None]]
"""One probe: why it failed, or None. It takes a bounded time."""


class Health:
    """The standings of whatever is probed. `learned` is called when one of them is known first, or turned."""

    def __init__(self, ask: Probe, learned: Callable[[], None]) -> None:
        self._ask = ask
        self._learned = learned
        self._standings: dict[ProbeTarget, AddressHealth] = {}
        self._probing: dict[ProbeTarget, asyncio.Task[None]] = {}
        self._log = log.get_logger()

    def __getitem__(self, target: ProbeTarget) -> AddressHealth:
        # Of one that is not followed nothing is known: `GET /status` may ask before anything is.
        return self._standings.get(target) or AddressHealth()

    @property
    def asked(self) -> bool:
        """Whether each was probed at least once."""
        return all(health.up is not None for health in self._standings.values())

    def follow(self, targets: Iterable[ProbeTarget], tasks: Tasks) -> None:
        """Probe these from now on, and no others; what is known of those that were probed already stays known."""
        followed = set(targets)
        for gone in self._standings.keys() - followed:
            del self._standings[gone]
            self._probing.pop(gone).cancel()
        for target in followed - self._standings.keys():
            self._standings[target] = AddressHealth()
            self._probing[target] = tasks.start(f"probe {target.url} {target.address}", self._probe_forever(target))

    async def _probe_forever(self, target: ProbeTarget) -> None:
        health = self._standings[target]
        every = target.terms.every
        while True:
            began = monotonic()
            try:
                failure = await self._ask(target)
            except Exception as error:  # Whatever it was, this address must not be forgotten for it.
                failure = f"the probe failed: {error!r}"
            if health.heard(failure):
                self._log_change(target, health)
                self._learned()
            # Not all at once, for the service's sake.
            await asyncio.sleep(max(0.0, began + every * random.uniform(0.9, 1.1) - monotonic()))

    def _log_change(self, target: ProbeTarget, health: AddressHealth) -> None:
        about = {"upstream": target.upstream, "url": target.url, "address": target.address}
        if health.up:
            self._log.info("upstream address is up", **about)
        else:
            self._log.warning("upstream address is down", why=health.why, **about)
