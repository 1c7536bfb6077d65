"""Load on the demonstration's edges, with Locust: in each region a customer without a limit, from the environment.

    locust -f demo/locustfile.py --headless --users 10 --run-time 10s --only-summary

`EDGES` has REGION=URL of each edge, `ATLAS` the key. Its users wait for their answers; the load test proper, with an
open model and a verdict, is scripts/loadtest.
"""

import os
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

EDGES = dict(pair.split("=", 1) for pair in os.environ["EDGES"].split())


class Client(FastHttpUser):
    """A client of one region's edge, with four requests a second."""

    abstract = True
    wait_time = constant_throughput(4)

    @task
    def get(self) -> None:
        """Send one request."""
        self.client.get("/get", headers={"X-API-Key": os.environ["ATLAS"]}, name=self.region)

    region: str


globals().update({region: type(region, (Client,), {"host": url, "region": region}) for region, url in EDGES.items()})


@events.quitting.add_listener
def report(environment: Environment, **_: Any) -> None:
    """Print a line for each region."""
    for region in EDGES:
        entry = environment.stats.get(region, "GET")
        p50, p95 = (entry.get_response_time_percentile(part) for part in (0.5, 0.95))
        print(
            f"{region}: p95 {p95:.0f} ms, p50 {p50:.0f} ms, {entry.num_requests} requests, {entry.num_failures} failed"
        )
