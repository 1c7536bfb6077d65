"""A service that reports usage, to be killed: `python -m tests.client.reporter URL TOKEN FOLDER NUMBER COUNT BASE`.

FOLDER/accepted has one byte for each report that the client accepted. After a restart the service continues behind
them, so it does not report an accepted event again.
"""

import os
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.client import EventClient

SOURCE = "reporter-{}"


class Report(NamedTuple):
    """One report of usage."""

    id: str
    customer: str
    meter: str
    value: int
    dimensions: dict[str, str]
    at: datetime


def reports(number: int, count: int, base: int) -> Iterator[Report]:
    """Yield the reports of this service, each twice, in random order."""
    chance = random.Random(number)
    made = [
        Report(
            f"e{place}",
            f"c{chance.randrange(5)}",
            chance.choice(("tokens", "runs")),
            chance.randrange(1, 9),
            chance.choice(
                ({}, {"model": f"m{chance.randrange(4)}"}, {"model": "m1", "agent": f"a{chance.randrange(3)}"})
            ),
            datetime.fromtimestamp(base - chance.randrange(3600), UTC),
        )
        for place in range(count)
    ]
    both = made * 2
    chance.shuffle(both)
    yield from both


def main(url: str, token: str, folder: Path, number: int, count: int, base: int) -> int:
    """Report all events that the client has not accepted yet."""
    client = EventClient(url, token, queue=folder / "queue", source=SOURCE.format(number), rejected=refuse)
    with (folder / "accepted").open("ab", buffering=0) as accepted:
        done = accepted.tell()
        for place, report in enumerate(reports(number, count, base)):
            if place >= done:
                said: dict[str, Any] = report._asdict()
                client.report(said.pop("customer"), said.pop("meter"), said.pop("value"), **said)
                accepted.write(b".")
    settled = client.flush(3000.0)
    client.close(0.0)
    return 0 if settled else 1


def refuse(event: dict[str, Any], error: str) -> None:
    """End the process with an error: every report of this service is valid."""
    os.write(2, f"{event}: {error}\n".encode())
    os._exit(3)


if __name__ == "__main__":
    url, token, folder, *numbers = sys.argv[1:]
    sys.exit(main(url, token, Path(folder), *map(int, numbers)))
