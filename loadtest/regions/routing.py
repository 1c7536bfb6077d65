"""A simulation of routing by client measurements: networks, some dishonest clients, and the quality of the choice.

    python -m loadtest.regions.routing [SEED]       prints the table of docs/edge/region-routing.md

A path is longer than the straight distance by its own factor, because fibre takes detours and networks meet at few
places. So the nearest region on a map is often not the nearest one. A client measures the path, its own access line,
and noise that only adds; it reports the least of five measurements.
"""

import math
import random
import sys
from typing import NamedTuple

from edgeproxy.regions.choice import Choice, choose_region
from edgeproxy.regions.latencies import Latencies, Report

REGIONS = {
    "eu-west": (53.3, -6.3),
    "eu-central": (50.1, 8.7),
    "us-east": (39.0, -77.5),
    "us-west": (45.8, -119.7),
    "ap-southeast": (1.3, 103.8),
}
COUNTRIES = {
    "GB": (52.5, -1.5), "DE": (51.2, 10.4), "TR": (39.0, 35.2), "US": (39.8, -98.6), "BR": (-10.8, -52.9),
    "ZA": (-29.0, 25.1), "IN": (22.4, 79.7), "JP": (36.6, 138.0), "AU": (-25.7, 134.5), "NG": (9.6, 8.1),
}  # fmt: skip
"""The centre of each; networks are up to 800 km from it."""
KM_PER_MS = 100.0
"""Kilometres of fibre per millisecond of a round trip."""
EARTH_KM = 6371.0
PINGS = 5
NOW = 1_000_000.0


class Place(NamedTuple):
    """A network: its country, and the true milliseconds from it to each region."""

    network: str
    country: str
    nearest_on_map: str
    paths: dict[str, float]


class Result(NamedTuple):
    """The quality of choices: the sum of their paths divided by that of the best paths, and the share within 5 %."""

    ratio: float
    within: float


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the kilometres between two places, along the surface."""
    (lat_a, lon_a), (lat_b, lon_b) = (tuple(map(math.radians, place)) for place in (a, b))
    half = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(half))


def world(rng: random.Random, networks: int) -> list[Place]:
    """Return random networks in these countries. Networks of one country share most of their detours."""
    detours = {(country, region): rng.uniform(1.2, 2.4) for country in COUNTRIES for region in REGIONS}
    places = []
    for number in range(networks):
        country = rng.choice(sorted(COUNTRIES))
        lat, lon = COUNTRIES[country]
        here = (lat + rng.uniform(-7, 7), lon + rng.uniform(-7, 7))
        far = {region: distance(here, there) for region, there in REGIONS.items()}
        paths = {
            region: 1 + km / KM_PER_MS * detours[country, region] * rng.uniform(0.9, 1.15) for region, km in far.items()
        }
        network = f"10.{number >> 8}.{number & 255}.0/24"
        places.append(Place(network, country, min(far, key=far.__getitem__), paths))
    return places


def measured(rng: random.Random, place: Place) -> dict[str, float]:
    """Return the report of an honest client."""
    access = rng.uniform(2, 30)
    return {
        region: min(path + access + rng.lognormvariate(1.0, 1.2) for _ in range(PINGS))
        for region, path in place.paths.items()
    }


def forged(place: Place) -> dict[str, float]:
    """Return the report of a dishonest client: the farthest region is very near, and all others are far."""
    worst = max(place.paths, key=place.paths.__getitem__)
    return {region: 1.0 if region == worst else 900.0 for region in REGIONS}


def gathered(rng: random.Random, places: list[Place], clients: int, liars: float) -> Latencies:
    """Return the collector's data after this many reports per network, with this share of dishonest clients."""
    known = Latencies(tuple(REGIONS))
    for place in places:
        lying = round(clients * liars)
        for client in range(clients):
            told = forged(place) if client < lying else measured(rng, place)
            known.add(Report(place.network, f"{client}", told, place.country), NOW)
    return known


def judged(places: list[Place], chosen: list[str]) -> Result:
    """Return how near these choices come to the best ones."""
    paths = [place.paths[region] for place, region in zip(places, chosen, strict=True)]
    best = [min(place.paths.values()) for place in places]
    within = sum(path <= 1.05 * least for path, least in zip(paths, best, strict=True))
    return Result(sum(paths) / sum(best), within / len(places))


def play(seed: int, liars: float = 0.0, networks: int = 200, clients: int = 10) -> dict[str, Result]:
    """Results by the way of choosing; a quarter of the networks has reported nothing, and goes by its country."""
    rng = random.Random(seed)
    places = world(rng, networks)
    silent = places[: networks // 4]
    heard = places[networks // 4 :]
    known = gathered(rng, heard, clients, liars)

    def best(place: Place) -> Choice:
        return choose_region(known, "eu-west", NOW, network=place.network, country=place.country)

    return {
        "by network": judged(heard, [best(place).region for place in heard]),
        "by country, networks that have not reported": judged(silent, [best(place).region for place in silent]),
        "the nearest on a map": judged(places, [place.nearest_on_map for place in places]),
        "one region for all": judged(places, ["eu-west"] * len(places)),
    }


def main() -> None:
    """Print the table."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print("| forged reports | chosen | path ÷ best path | within 5 % of the best |\n|---:|---|---:|---:|")
    for liars in (0.0, 0.1, 0.3, 0.4, 0.6):
        for how, result in play(seed, liars).items():
            if liars == 0 or how.startswith("by"):
                print(f"| {liars:.0%} | {how} | {result.ratio:.3f} | {result.within:.0%} |")


if __name__ == "__main__":
    main()
