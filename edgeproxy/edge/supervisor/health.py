"""Health checks: the verdict on an address by its probes, and the schedule of probes.

`AddressHealth` decides, and knows neither clock nor network; `Health` probes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.base.http_peer import HEAD_BYTES_MAX
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.tls import UpstreamTls

TURN_PROBES = 2
"""Consecutive probes that must contradict the present verdict to turn it."""


class ProbeTerms(NamedTuple):
    """The terms of a probe: path, seconds between two probes, TLS, and Host."""

    path: str
    every: float
    tls: UpstreamTls
    host: str | None = None
    """Host; None for the endpoint URL's own."""
    service: str | None = None
    """The service name for grpc.health.v1, in place of a path; None for HTTP probes."""
    head_bytes_max: int = HEAD_BYTES_MAX
    """Bytes of the answer's head: the bound of the upstream's other answers."""
    proxy_protocol: str | None = None
    """The version of the PROXY protocol: the connection begins with a header. None: with none."""
    trusted: tuple[Path, ...] = ()
    """The files of the setting `trust`, if the connection uses them."""


class ProbeTarget(NamedTuple):
    """An address of an upstream's endpoint and the terms of its probes. Other terms make another target."""

    upstream: str
    url: str
    address: str
    terms: ProbeTerms


class AddressHealth:
    """The verdict on one address by its probes so far."""

    def __init__(self) -> None:
        self.up: bool | None = None
        """True if the address is up; None before the first probe has ended."""
        self.why = "not probed yet"
        """The reason why the address is down; empty if it is up."""
        self._against = 0
        """Consecutive probes that contradicted `up`."""

    def record_probe(self, failure: str | None) -> bool:
        """Record a probe that passed (None) or failed for a reason. Return whether the verdict turned.

        The first probe counts at once, because there is no verdict that it could contradict.
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
    """Return, for each address of a service, whether it may be used: addresses that are up may be.

    An unprobed address is used only if no other is known to be up: it may be new and not ready, or the edge may have
    just started and know no address yet.
    """
    known = any(health.up for health in healths)
    return [bool(health.up) or (health.up is None and not known) for health in healths]


Probe = Callable[[ProbeTarget], Awaitable[str | None]]
"""A probe: returns why it failed, or None. It takes a bounded time."""


class Health:
    """The health of all probe targets.

    `on_change` is called at the first verdict on a target, and whenever one turns.
    """

    def __init__(self, probe: Probe, on_change: Callable[[], None]) -> None:
        self._probe = probe
        self._on_change = on_change
        self._health: dict[ProbeTarget, AddressHealth] = {}
        self._probing: dict[ProbeTarget, asyncio.Task[None]] = {}
        self._log = log.get_logger()

    def __getitem__(self, target: ProbeTarget) -> AddressHealth:
        # An unknown target has no verdict: `GET /status` may ask before any is followed.
        return self._health.get(target) or AddressHealth()

    @property
    def is_probed(self) -> bool:
        """True if each target was probed at least once."""
        return all(health.up is not None for health in self._health.values())

    def follow(self, targets: Iterable[ProbeTarget], tasks: Tasks) -> None:
        """Probe these targets from now on and no others. Verdicts on targets that stay are kept."""
        followed = set(targets)
        for gone in self._health.keys() - followed:
            del self._health[gone]
            self._probing.pop(gone).cancel()
        for target in followed - self._health.keys():
            self._health[target] = AddressHealth()
            self._probing[target] = tasks.start(f"probe {target.url} {target.address}", self._probe_forever(target))

    async def _probe_forever(self, target: ProbeTarget) -> None:
        health = self._health[target]
        every = target.terms.every
        while True:
            began = monotonic()
            try:
                failure = await self._probe(target)
            except Exception as error:  # Any error counts as a failed probe, so that the probing goes on.
                failure = f"the probe failed: {error!r}"
            if health.record_probe(failure):
                self._log_change(target, health)
                self._on_change()
            # Spread over time, to spare the service.
            await asyncio.sleep(max(0.0, began + every * random.uniform(0.9, 1.1) - monotonic()))

    def _log_change(self, target: ProbeTarget, health: AddressHealth) -> None:
        about = {"upstream": target.upstream, "url": target.url, "address": target.address}
        if health.up:
            self._log.info("upstream address is up", **about)
        else:
            self._log.warning("upstream address is down", why=health.why, **about)
