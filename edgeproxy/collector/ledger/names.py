"""Names with usage that neither the configuration nor the database knows: kept, and flagged."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from edgeproxy.base import log
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.config.meters import OVER_CAP
from edgeproxy.wire.batch import ANONYMOUS

REMEMBERED_MAX = 10_000
"""Unknown names of a kind that are remembered."""
NAMES_LOGGED_MAX = 5
"""Names that are said at once."""

FindCustomers = Callable[[Iterable[str]], Awaitable[set[str]]]
"""Says which of these names customers of the database have."""


async def find_no_customers(_: Iterable[str]) -> set[str]:
    """Know no customers but those of the configuration."""
    return set()


class NamesMetrics(Protocol):
    """What is reported of unknown names, to whoever presents metrics."""

    def unknown_names(self, kind: str, count: int) -> None:
        """So many names of this kind (`customer` or `meter`) are unknown."""


class Names:
    """The customers and meters that are known, of a configuration and a database, and those that are seen beside them.

    `among` is asked for customers that the configuration lacks; it must not raise.
    """

    def __init__(
        self,
        customers: Iterable[str],
        meters: Iterable[str],
        metrics: NamesMetrics,
        among: FindCustomers = find_no_customers,
    ) -> None:
        self._among = among
        self._known: dict[str, frozenset[str]] = {}
        self._unknown: dict[str, set[str]] = {"customer": set(), "meter": set()}
        self._metrics = metrics
        self._log = log.get_logger()
        self.set_known(customers, meters)

    def set_known(self, customers: Iterable[str], meters: Iterable[str]) -> None:
        """These are known, and no others but customers of the database."""
        self._known = {"customer": frozenset((*customers, ANONYMOUS)), "meter": frozenset((*meters, OVER_CAP))}
        for kind, seen in self._unknown.items():
            seen.difference_update(self._known[kind])
            self._metrics.unknown_names(kind, len(seen))

    async def record_names(self, customers: Iterable[str], meters: Iterable[str]) -> None:
        """Names that have usage; those that are not known are said, once each."""
        for kind, some in (("customer", customers), ("meter", meters)):
            seen = self._unknown[kind]
            missing = set(some) - self._known[kind] - seen
            if kind == "customer" and missing:
                missing -= await self._among(missing)
            new = sorted(missing)[: REMEMBERED_MAX - len(seen)]
            if new:
                seen.update(new)
                self._metrics.unknown_names(kind, len(seen))
                about = {"kind": kind, "names": new[:NAMES_LOGGED_MAX], "more": max(0, len(new) - NAMES_LOGGED_MAX)}
                self._log.warning("usage of names that the configuration lacks", **about)

    async def refresh_unknown(self) -> None:
        """Forget of those that were not known whom the database knows by now."""
        seen = self._unknown["customer"]
        if seen:
            seen -= await self._among(list(seen))
            self._metrics.unknown_names("customer", len(seen))

    async def find_unknown(self, question: LedgerQuery, rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
        """The names in an answer that are not known, by kind; kinds without any are left out."""
        names_by_kind: dict[str, set[str]] = {"customer": set(), "meter": set()}
        for kind, requested in (("customer", question.customer), ("meter", question.meter)):
            if requested is not None:
                names_by_kind[kind].add(requested)
            if kind in question.by:
                names_by_kind[kind].update(row[kind] for row in rows)
        unknown = {kind: some - self._known[kind] for kind, some in names_by_kind.items()}
        if unknown["customer"]:
            unknown["customer"] -= await self._among(unknown["customer"])
        return {kind: sorted(some) for kind, some in unknown.items() if some}
