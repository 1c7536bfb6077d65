"""The collectors that an edge ships usage to, by residency, and the state of its spools on disk."""

from typing import NamedTuple

from edgeproxy.config.edge.residency import find_home
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.usage.identity import SPOOL, get_chain_folder, list_set_aside
from edgeproxy.edge.usage.spool import fetch_watermark, list_segments


class Destinations(NamedTuple):
    """The collectors for usage, by residency; the empty name is the edge's own.

    `home` is the name of the edge's own residency, or None without residencies.
    """

    usages: dict[str, Usage]
    home: str | None = None

    @classmethod
    def from_settings(cls, settings: EdgeSettings) -> "Destinations":
        """Return the destinations of a configuration."""
        if settings.residency:
            usages = {"" if one.home else name: one.usage for name, one in settings.residency.items()}
            return cls(usages, find_home(settings.residency))
        return cls({} if settings.usage is None else {"": settings.usage})

    @property
    def own(self) -> Usage | None:
        """The destination of the edge's own usage; None if nothing is shipped."""
        return self.usages.get("")


class DiskFacts(NamedTuple):
    """The state of the spool on disk: its bytes, the last acknowledged batch, and the spools that were set aside."""

    spool_bytes: int
    watermark: int
    aside: tuple[str, ...]


NO_FACTS = DiskFacts(0, 0, ())


def fetch_disk_facts(store: Store, residencies: list[str]) -> dict[str, DiskFacts]:
    """Read the state of the spool of each residency. Raises OSError."""
    facts = {}
    for residency in residencies:
        state = get_chain_folder(store.state, residency)
        taken = sum(path.stat().st_size for path in list_segments(state / SPOOL))
        aside = tuple(path.name for path in list_set_aside(state))
        facts[residency] = DiskFacts(taken, fetch_watermark(state / SPOOL), aside)
    return facts
