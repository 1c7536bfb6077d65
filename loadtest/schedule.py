"""The schedule of arrivals, from a seed. Pure; it does not depend on the number of workers."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import NamedTuple


class Phase(NamedTuple):
    """For `seconds` the rate (requests/s) changes linearly from `rate` to `end_rate`."""

    seconds: float
    rate: float
    end_rate: float


class Recorded(NamedTuple):
    """Requests of an access log: `(seconds after the beginning, person, method, bytes of the answer, path)`, in order.

    Without a path it is the usual request.
    """

    seconds: float
    requests: Sequence[tuple[float, int, str, int, str]]


class Kind(NamedTuple):
    """A share (any unit) of the requests, and the number of its customers or addresses. `at_once` requests are due
    together.
    """

    share: float
    people: int
    at_once: int = 1


class Arrival(NamedTuple):
    """One request; its intended start is `due` seconds after the beginning of the run. `size` 0 is the usual size.

    `request` is the number of one of the workload's own requests, from 0; `path` is the path of a log's request.
    Without either, it is the usual request.
    """

    due: float
    region: str
    kind: str
    person: int
    method: str = "GET"
    size: int = 0
    request: int = -1
    path: str = ""


def arrivals(
    phases: Sequence[Phase | Recorded],
    regions: Mapping[str, float],
    kinds: Mapping[str, Kind],
    seed: object,
    requests: Sequence[float] = (),
) -> Iterator[Arrival]:
    """Yield all arrivals in order: a Poisson process with a variable rate (thinning: Lewis and Shedler, 1979).

    `regions` maps names to weights; `requests` are the weights of a workload's own requests. A recorded phase keeps
    its moments, and each of its people has one region and kind throughout.
    """
    rng = random.Random(f"{seed} arrivals")
    region_names, region_weights = [*regions], [*regions.values()]
    kind_names = [*kinds]
    # Requests that are due together are one event of the process.
    kind_weights = [kind.share / kind.at_once for kind in kinds.values()]
    events_a_request = sum(kind_weights) / sum(kind.share for kind in kinds.values())
    which = random.Random(f"{seed} requests")
    up_to = list(accumulate(requests))
    numbers = range(len(requests))
    begin = 0.0
    for phase in phases:
        if isinstance(phase, Recorded):
            known: dict[int, tuple[str, str, int]] = {}
            for at, person, method, size, path in phase.requests:
                if person not in known:
                    its = random.Random(f"{seed} person {person}")
                    (region,) = its.choices(region_names, region_weights)
                    (kind,) = its.choices(kind_names, [kind.share for kind in kinds.values()])
                    known[person] = region, kind, its.randrange(kinds[kind].people)
                yield Arrival(begin + at, *known[person], method, size, path=path)
        else:
            at, max_rate = 0.0, max(phase.rate, phase.end_rate)
            while (at := at + rng.expovariate(max_rate * events_a_request)) < phase.seconds:
                rate = phase.rate + (phase.end_rate - phase.rate) * at / phase.seconds
                if rng.random() * max_rate < rate:
                    (region,) = rng.choices(region_names, region_weights)
                    (kind,) = rng.choices(kind_names, kind_weights)
                    person = rng.randrange(kinds[kind].people)
                    for _ in range(kinds[kind].at_once):
                        request = which.choices(numbers, cum_weights=up_to)[0] if up_to else -1
                        yield Arrival(begin + at, region, kind, person, request=request)
        begin += phase.seconds


def share(schedule: Iterator[Arrival], worker: int, workers: int) -> Iterator[Arrival]:
    """Yield the arrivals that worker number `worker` (from 0) of `workers` starts."""
    return islice(schedule, worker, None, workers)


def length(phases: Sequence[Phase | Recorded]) -> float:
    """Return the seconds from the beginning of the first phase to the end of the last."""
    return sum(phase.seconds for phase in phases)
