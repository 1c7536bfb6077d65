"""Attackers do not make the requests of regular customers dearer, measured in calls of Python functions."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import pytest

from tests.support.transcript import Edge, digest, get, ok

REGULAR = 20
"""The number of customers that send a request in each round."""
OTHERS = 350
"""The number of other keys in the configuration. `limits.remembered` has room for fewer."""
ROUNDS = 20
COUNTED = ("/edge/proxy/routing/", "/edge/http1/", "/edge/proxy/exchange/")
"""The folders whose functions count: they read heads, find customers and apply tiers."""
TIMED = ("tick", "sweep", "count_lookups", "refresh_hosts", "format_date_field")
"""Functions in these folders that run on a timer."""


def regular() -> list[bytes]:
    return [get("/v1/x", f"X-API-Key: regular {number}") for number in range(REGULAR)]


def draw_invented(rng: random.Random) -> Iterator[int | str]:
    """Yield keys that no customer has."""
    while True:
        yield f"invented {rng.getrandbits(64)}"


def draw_all(rng: random.Random) -> Iterator[int | str]:
    """Yield the keys of one customer in turn. The customer has most keys of the configuration."""
    while True:
        yield from range(OTHERS)


def draw_zipf(rng: random.Random) -> Iterator[int | str]:
    """Yield keys by Zipf's law. The most frequent keys change every hundred draws."""
    weights = [1 / number for number in range(1, OTHERS + 1)]
    while True:
        first = rng.randrange(OTHERS)
        for key in rng.choices(range(OTHERS), weights, k=100):
            yield (first + key) % OTHERS


async def count_calls(edge: Edge, requests: Sequence[bytes]) -> int:
    """Return the number of function calls that these requests cost."""
    client = await edge.client()
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        code = frame.f_code
        if event == "call" and any(folder in code.co_filename for folder in COUNTED):
            calls += not any(name in code.co_qualname for name in TIMED)

    for request in requests:
        sys.setprofile(count)
        try:
            answer = await client.asks(request)
        finally:
            sys.setprofile(None)
        assert answer.status == 200
    return calls


@pytest.mark.patches_methods  # The profiler does not see compiled functions.
@pytest.mark.parametrize("draw", [draw_invented, draw_all, draw_zipf])
async def test_attackers_add_at_most_a_twentieth_to_a_regular_request(
    edge: Edge, draw: Callable[[random.Random], Iterator[int | str]]
) -> None:
    edge.config["tiers"] |= {"wide": {"limits": [{"rate": "1000000/min"}]}}
    edge.config["limits"] = {"remembered": "1MiB"}
    for number in range(REGULAR):
        edge.config["customers"][f"r{number}"] = {"tier": "wide"}
        edge.config["keys"].append({"sha256": digest(f"regular {number}"), "customer": f"r{number}"})
    for number in range(OTHERS):
        owner = "many" if draw is draw_all else f"o{number}"
        edge.config["customers"][owner] = {"tier": "wide"}
        edge.config["keys"].append({"sha256": digest(f"other {number}"), "customer": owner})
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    for request in regular() * 3:
        assert (await client.asks(request)).status == 200
    before = await count_calls(edge, regular() * 5)
    keys = draw(random.Random(1))
    during = 0
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            await edge.reloads()
            first = await count_calls(edge, regular())
            assert first > await count_calls(edge, regular()), "the snapshot is another one"
        for _ in range(REGULAR):
            key = next(keys)
            name = key if isinstance(key, str) else f"other {key}"
            answer = await client.asks(get("/v1/x", f"X-API-Key: {name}"))
            assert answer.status == (401 if isinstance(key, str) else 200)
        during += await count_calls(edge, regular())
    assert during / ROUNDS <= 1.05 * before / 5
