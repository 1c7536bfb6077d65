"""Locust as it comes, for comparison: ten users at 30 requests/s each, who wait for their answers (a closed model).

For `python -m loadtest.crosscheck`, which sets CROSSCHECK_KEY and CROSSCHECK_TIMES, the file for its times in seconds.
"""

import os
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task

USERS, EACH = 10, 30


class Waiting(FastHttpUser):
    """Asks again once it was answered, up to thirty times a second."""

    wait_time = constant_throughput(EACH)

    @task
    def ask(self) -> None:
        """One request."""
        self.client.get("/v1/x", headers={"X-API-Key": os.environ["CROSSCHECK_KEY"]})


TIMES: list[float] = []


@events.request.add_listener
def note(response_time: float, exception: Exception | None, **_: Any) -> None:
    if exception is None:
        TIMES.append(response_time / 1000)


@events.quitting.add_listener
def write(**_: Any) -> None:
    with open(os.environ["CROSSCHECK_TIMES"], "w") as stream:
        stream.write("\n".join(map(str, TIMES)))
