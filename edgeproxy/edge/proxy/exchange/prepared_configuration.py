"""A configuration in preparation: all parts of a snapshot that can be made while requests are served.

It is made in a thread. So nothing here may touch a table, a connection, or any other object that requests change.
"""

from collections.abc import Mapping

from edgeproxy.base.client_tls import HTTP2, HTTP11, ClientTls
from edgeproxy.base.sealed_memory import NO_MEMORY, MemoryReceiver
from edgeproxy.config.customers import Customer, Flag, Key, Subscriber
from edgeproxy.config.edge import load as edge_load
from edgeproxy.config.edge.customer_store import Customers
from edgeproxy.config.edge.routes import BASIC
from edgeproxy.config.edge.settings import EdgeSettings


class PreparedConfiguration:
    """Settings, customers, and the TLS settings towards upstreams."""

    def __init__(
        self,
        dumped: bytes,
        serving: "Mapping[str, ClientTls] | None" = None,
        memory: MemoryReceiver = NO_MEMORY,
    ) -> None:
        """`dumped` is the supervisor's message, and `memory` has the memory that belongs to it. TLS settings of
        `serving` that are unchanged are kept.

        Raises TlsFilesError if certificate files cannot be used.
        """
        self.settings: EdgeSettings
        self.customers: Customers
        self.settings, self.customers = edge_load.restore_settings(dumped, memory)
        self.upstream_tls = create_upstream_tls(self.settings, serving or {})
        # Once per process, and here: otherwise the first request with a key would wait for the models, and the loop for
        # jwt.
        for model in (Customer, Flag, Key, Subscriber):
            model.model_rebuild()
        if self.settings.issuers:
            import jwt  # noqa: F401
        if any(route.auth_mode == BASIC for route in self.settings.routes):
            import bcrypt  # noqa: F401


def create_upstream_tls(settings: EdgeSettings, serving: Mapping[str, ClientTls]) -> dict[str, ClientTls]:
    """Create the TLS settings towards each upstream that uses TLS. Raises TlsFilesError."""
    outward: dict[str, ClientTls] = {}
    trusted = settings.trust.files
    for name, upstream in settings.upstreams.items():
        if any(endpoint.scheme == "https" for endpoint in upstream.endpoints):
            known = serving.get(name)
            protocol = HTTP2 if upstream.protocol == "h2" else HTTP11
            if known is None or (known.settings, known.protocol, known.trusted) != (upstream.tls, protocol, trusted):
                known = ClientTls(upstream.tls, protocol, trusted)
            outward[name] = known
    return outward
