"""Upstreams: the services behind the edge, their endpoints, and their health checks."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers, units
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.balancing import Balance
from edgeproxy.config.edge.rewrites import Base
from edgeproxy.config.edge.timeouts import Duration, Timeouts
from edgeproxy.config.field_types import FieldName, Name, Share, Switch
from edgeproxy.config.part import Part
from edgeproxy.config.tls import UpstreamTls


class Endpoint(Part):
    """An address of an upstream. A URL alone is an endpoint with the defaults below."""

    url: Annotated[str, BeforeValidator(addresses.read_origin)] = Field(
        description="`http://HOST:PORT` or `https://HOST:PORT`; the port is 80 or 443 by default. In the short form a "
        "path may follow: `http://10.0.0.5:9001/api`."
    )
    path: Base | None = Field(
        default=None,
        description="Path to put before the path of each request; the same for all endpoints of an upstream. Not for "
        "`health`.",
    )
    weight: Annotated[int, BeforeValidator(units.Whole(1, 1000))] = Field(
        default=1,
        description="Share of the requests, relative to the other endpoints. Use more for a larger machine, less for a "
        "new version.",
    )
    region: Name | None = Field(
        default=None,
        description="Region of the endpoint. Endpoints of other regions are used only while none of the edge's own "
        "region is available, in their order here. By default the edge's region.",
    )

    @property
    def scheme(self) -> str:
        """The scheme: `http` or `https`."""
        return self.url.partition("://")[0]

    @property
    def authority(self) -> str:
        """The authority: `HOST:PORT`, with IPv6 in brackets."""
        return self.url.partition("://")[2]

    @property
    def host(self) -> str:
        """The host name or IP address, IPv6 without brackets."""
        return self.authority.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.authority.rpartition(":")[2])

    def find_sent_host(self, host: str) -> str | None:
        """Return the Host for this endpoint, if its upstream's setting is `host`. None: the client's own Host."""
        if host == "upstream":
            # As clients write it: without the scheme's default port (RFC 9110 section 7.2).
            return self.authority.removesuffix(f":{addresses.PORTS[self.scheme]}")
        return None if host == "pass" else host


class Health(Part):
    """Probes of endpoints.

    Two failures in a row take an endpoint out, two successes bring it back. If all are out, requests get 503.
    """

    path: Annotated[str, BeforeValidator(parsers.read_target)] | None = Field(
        default=None,
        description="Path of the probe, with GET; 2xx and 3xx are successes. Choose a cheap one that fails when the "
        "service cannot serve.",
    )
    grpc: str | None = Field(
        default=None,
        max_length=127,
        description='Service name for the check with `grpc.health.v1`, `""` for the whole server; SERVING is a '
        "success. It replaces `path` if the `protocol` is `h2` or `h2c`.",
    )
    every: Duration = Field(
        default=5.0, description="Time between two probes of an endpoint, and the timeout of a probe."
    )


class Retry(Part):
    """Retries of a request if a retry does no harm.

    This needs one of two conditions: no byte of the request was sent, or its method is idempotent and the connection
    ended before the first byte of an answer. The edge must also still have the whole body. A request that timed out is
    not sent again. If the service closes a reused connection at the moment of the request, the request always goes out
    again over a new connection: [when a request is sent again](upstreams.md#when-a-request-is-sent-again).
    """

    attempts: Annotated[int, BeforeValidator(units.Whole(1, 10))] = Field(
        default=2, description="Maximum number of times that a request is sent. `1`: no retry."
    )
    budget: Share = Field(
        default=0.2,
        description="Retries as a share of the requests in the last seconds. This keeps retries from overloading a "
        "struggling service. The first few are always allowed.",
    )


class Eject(Part):
    """Outlier detection. Each worker counts for itself.

    If all endpoints are left out, all are used. The first one that answers without an error is back.
    """

    errors: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = Field(
        default=5,
        description="Requests in a row that ended in a fault, or with a status of 500 and above. Use more if 500 is an "
        "ordinary answer.",
    )
    for_: Duration = Field(
        default=30.0,
        alias="for",
        description="How long the endpoint is left out. Once it is back, its next error ejects it again.",
    )


class Breaker(Part):
    """The circuit breaker of an upstream."""

    pending: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = Field(
        description="Requests that may wait for the head of an answer, in all workers together; beyond it 503 at once. "
        "Set a few times the number that the service works on at once."
    )


class Upstream(Part):
    """A service behind the edge.

    ```yaml
    upstreams:
      api:
        endpoints:
          - http://10.0.0.5:9001
          - {url: http://10.0.0.6:9001, weight: 2}
          - {url: https://api.us.example.com, region: us-east}
        health: {path: /healthz}
        breaker: {pending: 1000}
        tls: {ca: certs/internal-ca.pem}
    ```
    """

    endpoints: Annotated[
        tuple[Annotated[Endpoint, BeforeValidator(readers.read_endpoint)], ...], Field(min_length=1)
    ] = Field(
        description="Addresses of the service, each once. A host name with several addresses is as many endpoints."
    )
    protocol: Literal["http/1.1", "h2", "h2c"] = Field(
        default="http/1.1",
        description="Protocol of the service. `h2`: HTTP/2 over TLS; `h2c`: HTTP/2 without TLS, by prior knowledge; "
        "for [gRPC](grpc.md). A worker opens one connection to each endpoint, and another one if that has no free "
        "stream.",
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="Times that the service may take.")
    buffer: Annotated[int, BeforeValidator(units.Size(1, 1 << 50))] | None = Field(
        default=None,
        description="Largest body that the edge collects before it sends the request, so that no [slow "
        "client](upstreams.md#slow-clients) holds a thread of the service. A larger body gets 413. Up to 256 KiB "
        "of a request are in memory, the rest in an unnamed file in the state directory. For servers with few "
        "threads. By default bodies pass as they arrive.",
    )
    head: Annotated[int, BeforeValidator(units.Size(16 << 10, 256 << 10))] = Field(
        default=64 << 10,
        description="Size of an answer's head; a longer one gets 502. Each concurrent request needs this memory.",
    )
    pool: Annotated[int, BeforeValidator(units.Whole(1, 65_535))] = Field(
        default=256,
        description="Idle connections of a worker to each endpoint. Use less if the service can hold few open.",
    )
    proxy_protocol: Literal["v1", "v2"] | None = Field(
        default=None,
        description="Begins each connection with a header of the [PROXY protocol](tls.md#towards-upstreams) that has "
        "the client's address. Each request then needs a connection of its own. By default none.",
    )
    host: Annotated[str, BeforeValidator(readers.read_sent_host)] | None = Field(
        default=None,
        description="`Host` that the service gets: the client's (`pass`), the one in the endpoint's URL (`upstream`), "
        "or this name. By default `upstream` if an endpoint is `https://` with a name, because such services select "
        "by host, else `pass`. `X-Forwarded-Host` always has the client's. Probes send this name, else the one in the "
        "URL.",
    )
    balance: Balance | None = Field(
        default=None,
        description="[Affinity](affinity.md) of requests to endpoints, for services that keep sessions. By default a "
        "request goes to the less loaded of two endpoints.",
    )
    request_id_field: FieldName | None = Field(
        default=None,
        description="Answer field with the service's own id of a request, such as `x-request-id` of OpenAI or "
        "`Request-Id` of Stripe, for the [access log](access-log.md): `upstream_request_id`. The service's support "
        "asks for this id. By default none.",
    )
    forward_key: Switch = Field(
        default=False,
        description="Sends the service the client's API key. It gets `X-Customer-Id` and `X-Customer-Tier` in any "
        "case.",
    )
    health: Health | None = Field(default=None, description="Probes of endpoints. By default none.")
    retry: Retry = Field(default=Retry(), description="Rules for sending a request again.")
    eject: Annotated[Eject | None, BeforeValidator(parsers.read_unless_off)] = Field(
        default=Eject(), description="Rules for leaving out a failing endpoint for a while."
    )
    breaker: Breaker | None = Field(
        default=None, description="Bound on waiting requests. Above it the service gets no more. By default none."
    )
    tls: UpstreamTls = Field(
        default=UpstreamTls(), description="TLS towards endpoints with `https://`. An error if there are none."
    )

    @property
    def has_named_tls(self) -> bool:
        """True if an `https://` endpoint has a name, so that its certificate can be checked for the name."""
        return any(
            endpoint.scheme == "https" and not addresses.is_address(endpoint.host) for endpoint in self.endpoints
        )

    @property
    def sent_host(self) -> str:
        """The Host for the service: `pass`, `upstream` or a name."""
        return self.host or ("upstream" if self.has_named_tls else "pass")
