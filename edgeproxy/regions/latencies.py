"""What clients have measured to each region, by network and country, in bounded memory.

A voter has one vote in its network, the last one; a network has one in its country. Medians are taken of votes, so
fewer than half of them, however forged, cannot move a choice beyond what honest ones measured.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from statistics import median
from typing import NamedTuple

NETWORKS_MAX = 20_000
"""Networks of which anything is known; the one heard of least recently is forgotten first."""
VOTERS_MAX = 16
"""Votes that a network keeps, the latest."""
VOTERS_MIN = 3
"""Votes below which a network has no say: one client does not decide for its neighbours."""
COUNTRY_NETWORKS_MAX = 256
"""Networks that speak for a country, those heard of last."""
COUNTRY_NETWORKS_MIN = 3
"""Networks below which a country has no say."""
KEPT_SECONDS = 7 * 86400
"""Seconds for which a vote counts."""
MS_MAX = 10_000.0
"""Milliseconds above which nothing is believed to have been measured."""

Medians = dict[str, float]
"""Milliseconds by region, of those that enough votes are about."""


class Report(NamedTuple):
    """What one client has measured, in milliseconds by region."""

    network: str
    voter: str
    measured: Mapping[str, float]
    country: str | None = None


class Votes:
    """The votes of one network."""

    __slots__ = ("by_voter", "country", "known", "until")

    def __init__(self) -> None:
        self.by_voter: OrderedDict[str, tuple[float, array[float]]] = OrderedDict()
        """When each was cast, and the milliseconds to each region; nan: not measured."""
        self.country: str | None = None
        self.known: Medians | None = None
        """The medians, until a vote is cast or `until`."""
        self.until = 0.0


class Latencies:
    """All votes, about these regions and no others."""

    def __init__(self, regions: Sequence[str], *, networks_max: int = NETWORKS_MAX) -> None:
        self.regions = tuple(regions)
        self._networks_max = networks_max
        self._networks: OrderedDict[str, Votes] = OrderedDict()
        self._countries: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def add(self, report: Report, now: float) -> bool:
        """Count a report; False where nothing in it is about our regions, or can be believed."""
        vote = array("f", [believed(report.measured.get(region)) for region in self.regions])
        if all(map(isnan, vote)):
            return False
        votes = self._networks.get(report.network)
        if votes is None:
            votes = self._networks[report.network] = Votes()
            if len(self._networks) > self._networks_max:
                self._forget(next(iter(self._networks)))
        self._networks.move_to_end(report.network)
        votes.by_voter[report.voter] = (now, vote)
        votes.by_voter.move_to_end(report.voter)
        if len(votes.by_voter) > VOTERS_MAX:
            votes.by_voter.popitem(last=False)
        votes.known = None
        self._settle(report.network, votes, report.country)
        return True

    def of_network(self, network: str, now: float) -> Medians:
        """Return the medians of a network's votes, of regions about which there are VOTERS_MIN; may be empty."""
        votes = self._networks.get(network)
        if votes is None:
            return {}
        if votes.known is None or now >= votes.until:
            fresh = [vote for cast, vote in votes.by_voter.values() if now - cast < KEPT_SECONDS]
            votes.known = self._medians(fresh, VOTERS_MIN)
            casts = [cast for cast, _ in votes.by_voter.values() if now - cast < KEPT_SECONDS]
            votes.until = min(casts, default=now) + KEPT_SECONDS
        return votes.known

    def of_country(self, country: str, now: float) -> Medians:
        """Return the medians of a country's networks, of regions that COUNTRY_NETWORKS_MIN know; may be empty."""
        known = [self.of_network(network, now) for network in self._countries.get(country, ())]
        votes = [[medians.get(region, nan) for region in self.regions] for medians in known]
        return self._medians(votes, COUNTRY_NETWORKS_MIN)

    def _medians(self, votes: Sequence[Iterable[float]], least: int) -> Medians:
        found: Medians = {}
        for region, column in zip(self.regions, zip(*votes, strict=True), strict=False):
            measured = [ms for ms in column if not isnan(ms)]
            if len(measured) >= least:
                found[region] = median(measured)
        return found

    def _settle(self, network: str, votes: Votes, country: str | None) -> None:
        """Let the network speak for the country that it was last said to be in."""
        if country is not None and country != votes.country:
            self._unsettle(network, votes)
            votes.country = country
        if votes.country is not None:
            speaking = self._countries.setdefault(votes.country, OrderedDict())
            speaking[network] = None
            speaking.move_to_end(network)
            if len(speaking) > COUNTRY_NETWORKS_MAX:
                speaking.popitem(last=False)

    def _unsettle(self, network: str, votes: Votes) -> None:
        if votes.country is not None:
            speaking = self._countries[votes.country]
            speaking.pop(network, None)
            if not speaking:
                del self._countries[votes.country]

    def _forget(self, network: str) -> None:
        self._unsettle(network, self._networks.pop(network))


def believed(ms: float | None) -> float:
    """Return milliseconds that somebody may have measured, else nan."""
    return ms if ms is not None and 0 < ms <= MS_MAX else nan
