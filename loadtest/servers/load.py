"""The load: rounds of GET and POST over persistent connections, with a pause after each round.

The pause is about as long as the server keeps an idle connection. So a proxy writes to connections that are just
being closed.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

AROUND = (-0.040, 0.010)
"""Seconds of difference between each client's pause and the server's idle time."""
BODIES = (b"", b"x" * 100, b"x" * 10_000, b"x" * 200_000)
WITHOUT_KEEPING = 0.02
"""Seconds of pause for a server that keeps no connection."""


@dataclass
class Outcome:
    """The results of all requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    """Incomplete or wrong answers, by kind."""

    @property
    def faults(self) -> int:
        """Requests that did not get the server's usual answer."""
        return sum(count for status, count in self.statuses.items() if status != 200) + self.broken.total()

    def __str__(self) -> str:
        text = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items()))
        return text + "".join(f", {count} × {what}" for what, count in self.broken.items())


async def rounds(port: int, keeps: float, requests: int, *, clients: int, each: int, seed: int) -> Outcome:
    """Request `requests` answers in all: in each round every client sends `each` requests, and then pauses."""
    outcome, chance = Outcome(), random.Random(seed)
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout, connector=connector) as session:
        left = requests
        while left > 0:
            plans = [
                (max(0.0, keeps + chance.uniform(*AROUND)) if keeps else WITHOUT_KEEPING, chance.random())
                for _ in range(clients)
            ]
            await asyncio.gather(*(turn(session, outcome, each, *plan) for plan in plans))
            left -= clients * each
    return outcome


async def turn(session: aiohttp.ClientSession, outcome: Outcome, each: int, quiet: float, draw: float) -> None:
    """Run one client's round. `draw` is its start in the list of bodies."""
    await asyncio.sleep(quiet)
    for index in range(each):
        body = BODIES[(int(draw * len(BODIES)) + index) % len(BODIES)]
        try:
            method = "POST" if body else "GET"
            async with session.request(method, "/hello", data=body or None) as answer:
                said = await answer.read()
            outcome.statuses[answer.status] += 1
            if answer.status == 200 and said != b"%d\n" % len(body):
                outcome.broken["another answer"] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome.broken[type(error).__name__] += 1
