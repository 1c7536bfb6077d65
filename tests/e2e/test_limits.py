"""When to come back, as clients are told it.

What passes is in tests/faults/test_hammer.py, fields in tests/edge/proxy.
"""

import random
import time

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.waiting import wait_until


def test_a_retry_after_as_many_seconds_as_the_refusal_says_passes(start_edge: StartEdge, seed: int) -> None:
    edge, draw, key = start_edge(**people(acme=["5/2s"])), random.Random(seed), key_of("acme")
    for _ in range(2):
        while (answer := edge.ask(key=key)).status == 200:
            wait_until(time.monotonic() + draw.random() * 0.1)
        seconds = int(answer["retry-after"])
        # The oldest of 28 cells counts in full.
        assert 1 <= seconds <= 3
        wait_until(time.monotonic() + seconds)
        assert edge.ask(key=key).status == 200
