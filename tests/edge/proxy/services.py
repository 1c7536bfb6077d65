"""Services and endpoints without sockets, and the choice between them."""

import random
from collections import Counter
from typing import Any

from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.edge.messages import EndpointAddresses
from edgeproxy.edge.proxy.upstreams.pool import Service


class Seconds:
    """A histogram: only how much is in it is looked at."""

    count = 0


def service(n: int = 0, *, seed: int = 1, endpoints: list[Any] | None = None, **settings: Any) -> Service:
    if endpoints is None:
        endpoints = [f"http://10.0.0.1:{9000 + number}" for number in range(n)]
    upstream = Upstream.model_validate({"endpoints": endpoints, **settings})
    return Service("api", upstream, "eu-west", Seconds(), chance=random.Random(seed))


def at(host: str, **settings: Any) -> dict[str, Any]:
    """An endpoint as configured."""
    return {"url": f"http://{host}:80", **settings}


def told(*listing: str) -> list[EndpointAddresses]:
    """Return the supervisor's message: each endpoint's addresses. A minus sign marks an address that is down."""
    return [
        EndpointAddresses(
            [address.removeprefix("-") for address in addresses.split()],
            [address for address in addresses.split() if not address.startswith("-")],
        )
        for addresses in listing
    ]


def chosen(of: Service, times: int = 600) -> Counter[str]:
    return Counter(of.select().address for _ in range(times))
