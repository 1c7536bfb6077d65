"""TLS for servers that a supervisor asks."""

import ssl
from pathlib import Path

from edgeproxy.config.edge.upstreams import Endpoint, Health, Upstream
from edgeproxy.config.tls import UpstreamTls
from loadtest.testbed.authority import Pair


def serving(pair: Pair, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return the TLS context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def tls_upstream(port: int, host: str = "127.0.0.1", **tls: object) -> Upstream:
    return Upstream(
        endpoints=(Endpoint(url=f"https://{host}:{port}"),),
        health=Health(path="/"),
        tls=UpstreamTls.model_validate(tls),
    )
