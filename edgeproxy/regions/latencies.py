"""Latencies of regions as clients have measured them, by network and country, in bounded memory.

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
"""Networks with votes; the one with the oldest report is removed first."""
VOTERS_MAX = 16
"""The latest votes of a network that are stored."""
VOTERS_MIN = 3
"""Votes below which a network has no say: one client does not decide for its neighbours."""
COUNTRY_NETWORKS_MAX = 256
"""Networks that vote in a country, those with the latest reports."""
COUNTRY_NETWORKS_MIN = 3
"""Networks below which a country has no say."""
VOTE_SECONDS = 7 * 86400
"""Seconds for which a vote counts."""
MS_MAX = 10_000.0
"""Milliseconds above which a measurement is not plausible."""

Medians = dict[str, float]
"""Milliseconds by region, for regions with enough votes."""


class Report(NamedTuple):
    """The measurements of one client, in milliseconds by region."""

    network: str
    voter: str
    measured: Mapping[str, float]
    country: str | None = None


class Votes:
    """The votes of one network."""

    __slots__ = ("by_voter", "country", "medians", "until")

    def __init__(self) -> None:
        self.by_voter: OrderedDict[str, tuple[float, array[float]]] = OrderedDict()
        """The time of each vote, and the milliseconds to each region; nan: not measured."""
        self.country: str | None = None
        self.medians: Medians | None = None
        """The cached medians, valid until a vote is added, or until `until`."""
        self.until = 0.0


class Latencies:
    """The votes about these regions."""

    def __init__(self, regions: Sequence[str], *, networks_max: int = NETWORKS_MAX) -> None:
        self.regions = tuple(regions)
        self._networks_max = networks_max
        self._networks: OrderedDict[str, Votes] = OrderedDict()
        self._countries: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def add(self, report: Report, now: float) -> bool:
        """Add a report; False where nothing in it is about these regions, or plausible."""
        vote = array("f", [get_plausible(report.measured.get(region)) for region in self.regions])
        if all(map(isnan, vote)):
            return False
        votes = self._networks.get(report.network)
        if votes is None:
            votes = self._networks[report.network] = Votes()
            if len(self._networks) > self._networks_max:
                self._remove(next(iter(self._networks)))
        self._networks.move_to_end(report.network)
        votes.by_voter[report.voter] = (now, vote)
        votes.by_voter.move_to_end(report.voter)
        if len(votes.by_voter) > VOTERS_MAX:
            votes.by_voter.popitem(last=False)
        votes.medians = None
        self._assign_country(report.network, votes, report.country)
        return True

    def compute_network_medians(self, network: str, now: float) -> Medians:
        """Compute the medians of a network's votes, of regions with VOTERS_MIN votes; may be empty."""
        votes = self._networks.get(network)
        if votes is None:
            return {}
        if votes.medians is None or now >= votes.until:
            current = [vote for cast, vote in votes.by_voter.values() if now - cast < VOTE_SECONDS]
            votes.medians = self._compute_medians(current, VOTERS_MIN)
            casts = [cast for cast, _ in votes.by_voter.values() if now - cast < VOTE_SECONDS]
            votes.until = min(casts, default=now) + VOTE_SECONDS
        return votes.medians

    def compute_country_medians(self, country: str, now: float) -> Medians:
        """Compute the medians of a country's networks, of regions with COUNTRY_NETWORKS_MIN networks; may be empty."""
        by_network = [self.compute_network_medians(network, now) for network in self._countries.get(country, ())]
        votes = [[medians.get(region, nan) for region in self.regions] for medians in by_network]
        return self._compute_medians(votes, COUNTRY_NETWORKS_MIN)

    def _compute_medians(self, votes: Sequence[Iterable[float]], least: int) -> Medians:
        medians: Medians = {}
        for region, column in zip(self.regions, zip(*votes, strict=True), strict=False):
            measured = [ms for ms in column if not isnan(ms)]
            if len(measured) >= least:
                medians[region] = median(measured)
        return medians

    def _assign_country(self, network: str, votes: Votes, country: str | None) -> None:
        """Let a network vote in the country of its last report."""
        if country is not None and country != votes.country:
            self._leave_country(network, votes)
            votes.country = country
        if votes.country is not None:
            voting = self._countries.setdefault(votes.country, OrderedDict())
            voting[network] = None
            voting.move_to_end(network)
            if len(voting) > COUNTRY_NETWORKS_MAX:
                voting.popitem(last=False)

    def _leave_country(self, network: str, votes: Votes) -> None:
        if votes.country is not None:
            voting = self._countries[votes.country]
            voting.pop(network, None)
            if not voting:
                del self._countries[votes.country]

    def _remove(self, network: str) -> None:
        self._leave_country(network, self._networks.pop(network))


def get_plausible(ms: float | None) -> float:
    """Return plausible milliseconds, else nan."""
    return ms if ms is not None and 0 < ms <= MS_MAX else nan
