"""A whole edge that speaks HTTP/2 at two listeners, one of them with TLS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.upstream import Upstream
from tests.edge.proxy.authority import Authority

OPEN: Sequence[dict[str, Any]] = ({"name": "all", "path": "/*", "upstream": "api", "auth": "none"},)


class Http2Site:
    """The edge, and the authority of its certificate."""

    def __init__(
        self, folder: Path, upstream: Upstream, routes: Sequence[dict[str, Any]] = OPEN, **settings: Any
    ) -> None:
        self.authority = Authority(folder)
        cert, key = self.authority.issues(HOST)
        self._ports = Ports(1)
        (self.secure_port,) = self._ports.numbers
        self.edge = Edge(folder / "edge", upstream.port, **{"workers": 1, "routes": list(routes), **settings})
        tls = {"cert": str(cert), "key": str(key)}
        self.edge.settings["listen"] = [
            {"address": f"{HOST}:{self.edge.port}", "http2": True},
            {"address": f"{HOST}:{self.secure_port}", "http2": True, "tls": tls},
        ]
        self.edge.start()

    @property
    def url(self) -> str:
        """The URL of the TLS listener."""
        return f"https://{HOST}:{self.secure_port}"

    def close(self) -> None:
        self.edge.close()
        self._ports.close()
