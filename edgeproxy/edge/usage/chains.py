"""The chains of batches of an edge: one for each residency of its customers, and mostly just one.

The tables are read once for all of them, and each chain is sealed separately, from its own rows alone: a row belongs to
one chain for ever, by the name of its customer. So a kill between two seals leaves one chain sealed and the other as it
was; the next reading finds its rows again. A file of the tables counts as sealed once every chain is.

A state directory has one home for life. The home's chain is in the directory itself, so an edge that introduces
residencies continues with its chain. `residency/home` names the home: under another home, its batches would go to a
collector of another place.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from edgeproxy.edge.counters.file import write_whole
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.usage.identity import RESIDENCIES, IdentityError
from edgeproxy.edge.usage.seal import Growth, Sealer
from edgeproxy.edge.usage.segment import Disk
from edgeproxy.edge.usage.table_reading import read_tables

HOME = "home"


class ChainGrowth(NamedTuple):
    """The growth of one chain."""

    sealer: Sealer
    growth: Growth


class Chains:
    """The sealers of one edge, by residency; the empty name is the edge's own."""

    def __init__(self, store: Store, sealers: dict[str, Sealer]) -> None:
        self._store = store
        self.sealers = sealers

    @classmethod
    def open(
        cls,
        store: Store,
        region: str,
        now: float,
        *,
        home: str | None = None,
        others: Collection[str] = (),
        disk: Disk | None = None,
    ) -> "Chains":
        """Open the sealers of the holder of the identity lock, as Sealer.open does and with its errors.

        `home` is the name of the edge's own residency, or None without residencies.
        """
        settle_home(store, home)
        sealers: dict[str, Sealer] = {}
        try:
            for residency in ("", *others):
                sealers[residency] = Sealer.open(store, region, now, disk=disk, residency=residency)
        except BaseException:
            for sealer in sealers.values():
                sealer.close()
            raise
        return cls(store, sealers)

    def find_growth(self, now: float) -> tuple[list[ChainGrowth], tuple[str, ...]]:
        """Find the growth of each chain, and faults. Raises as Sealer.find_growth."""
        for sealer in self.sealers.values():
            sealer.finish_marks()
        reading = read_tables(self._store)
        unknown = sorted(reading.increases.keys() - self.sealers.keys())
        faults = tuple(f"usage of the residency {name} is not sealed: it is not configured" for name in unknown)
        growths = [ChainGrowth(sealer, sealer.select_growth(reading, now, now)) for sealer in self.sealers.values()]
        met = dict.fromkeys(fault for growth in growths for fault in growth.growth.faults)
        return growths, (*met, *faults)

    def record_sealed(self, growths: list[ChainGrowth]) -> None:
        """Record that all of this growth is sealed: the last step, once every chain is."""
        for sealer, growth in growths:
            sealer.record_sealed(growth)

    def close(self) -> None:
        """Close all spools."""
        for sealer in self.sealers.values():
            sealer.close()


def settle_home(store: Store, home: str | None) -> None:
    """Record the home of a state directory. Raise IdentityError if it differs from the recorded one."""
    path, before = store.state / RESIDENCIES / HOME, fetch_home(store.state)
    if before is None and home is not None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, home.encode())
    elif before != home:
        what = "no residency is" if home is None else f"{home} is"
        raise IdentityError(
            f"{path} says that the usage here is of the residency {before}, and {what} configured as the home: write "
            "that one, or begin anew with another state directory once all is shipped"
        )


def fetch_home(state: Path) -> str | None:
    """Return the residency of the edge itself; None without residencies. Raises OSError."""
    try:
        return (state / RESIDENCIES / HOME).read_text().strip()
    except FileNotFoundError:
        return None
