"""Upstreams: the services behind the edge, their endpoints, and how these are watched."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers, units
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.rewrites import Base
from edgeproxy.config.edge.timeouts import Duration, Timeouts
from edgeproxy.config.field_types import Name, Share, Switch
from edgeproxy.config.part import Part
from edgeproxy.config.tls import UpstreamTls


class Endpoint(Part):
    """One address of an upstream."""

    url: Annotated[str, BeforeValidator(addresses.read_origin)]
    """http://HOST:PORT or https://HOST:PORT, once read always with the port."""
    path: Base | None = None
    """What is put before the path of each request: the same for all endpoints of an upstream."""
    weight: Annotated[int, BeforeValidator(units.Whole(1, 1000))] = 1
    """Its share of the requests, relative to the other endpoints'."""
    region: Name | None = None
    """Where it is; endpoints of the edge's own region, and those without one, are asked first."""

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self.url.partition("://")[0]

    @property
    def authority(self) -> str:
        """`HOST:PORT`, IPv6 in brackets."""
        return self.url.partition("://")[2]

    @property
    def host(self) -> str:
        """A host name or an IP address, IPv6 without brackets."""
        return self.authority.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """A TCP port."""
        return int(self.authority.rpartition(":")[2])

    def find_sent_host(self, host: str) -> str | None:
        """Return the Host that it gets where `host` is what its upstream says of that; None for the client's own."""
        if host == "upstream":
            # As clients write it: without the port where it is the scheme's (RFC 9110 section 7.2).
            return self.authority.removesuffix(f":{addresses.PORTS[self.scheme]}")
        return None if host == "pass" else host


class Health(Part):
    """How endpoints are probed. Two failures in a row take one out, two passes bring it back."""

    path: Annotated[str, BeforeValidator(parsers.read_target)]
    """What is asked with GET; any answer of 2xx or 3xx is a pass."""
    every: Duration = 5.0
    """Between two probes of an endpoint, and the longest that one may take."""


class Retry(Part):
    """When a request is sent again: where that does no harm, and the edge still holds all of it."""

    attempts: Annotated[int, BeforeValidator(units.Whole(1, 10))] = 2
    """How often a request is sent at most, the first time included."""
    budget: Share = 0.2
    """How many retries there may be, as a share of the requests of the last seconds."""


class Eject(Part):
    """When an endpoint is left out for a while; never the only one that is up."""

    errors: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = 5
    """After how many requests in a row that ended in a fault, or in a status of 500 and above."""
    for_: Duration = Field(default=30.0, alias="for")
    """For how long. Back then, its next error ejects it again."""


class Breaker(Part):
    """When an upstream is asked no more."""

    pending: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))]
    """How many requests may wait for the head of an answer, in all workers together."""


class Upstream(Part):
    """A service behind the edge."""

    endpoints: Annotated[tuple[Annotated[Endpoint, BeforeValidator(readers.read_endpoint)], ...], Field(min_length=1)]
    """Where the service listens; requests are shared among its endpoints."""
    timeouts: Timeouts = Timeouts()
    """How long the upstream may take."""
    buffer: Annotated[int, BeforeValidator(units.Size(1, 1 << 50))] | None = None
    """With it, requests are sent once their bodies are whole; no body may be larger."""
    head: Annotated[int, BeforeValidator(units.Size(16 << 10, 256 << 10))] = 64 << 10
    """Bytes of an answer's head."""
    pool: Annotated[int, BeforeValidator(units.Whole(1, 65_535))] = 256
    """Idle connections that a worker keeps to each endpoint."""
    host: Annotated[str, BeforeValidator(readers.read_sent_host)] = "pass"
    """The Host that it gets: what the client sent (`pass`), that of the endpoint's URL (`upstream`), or this name."""
    forward_key: Switch = False
    """Whether the upstream is sent the client's API key."""
    health: Health | None = None
    """How its endpoints are probed; by default not."""
    retry: Retry = Retry()
    """When a request is sent again."""
    eject: Annotated[Eject | None, BeforeValidator(parsers.read_unless_off)] = Eject()
    """When an endpoint is left out for a while; `off`: never."""
    breaker: Breaker | None = None
    """When it is asked no more; by default it is always asked."""
    tls: UpstreamTls = UpstreamTls()
    """TLS, for endpoints of https://."""
