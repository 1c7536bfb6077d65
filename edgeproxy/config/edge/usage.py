"""Where the edge ships usage."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers, units
from edgeproxy.config.part import Part
from edgeproxy.config.tls import CollectorTls


class Usage(Part):
    """Where usage is shipped."""

    collector: Annotated[str, BeforeValidator(addresses.read_collector)]
    """http://HOST:PORT or https://HOST:PORT, once read always with the port."""
    token: Annotated[str | None, BeforeValidator(parsers.read_token)] = Field(default=None, repr=False)
    """By which the collector knows that an edge ships; one of its tokens with the role `edge`."""
    every: Annotated[float, BeforeValidator(units.Time(0.1, 60.0))] = 5.0
    """After which time what was counted is sealed, and shipped; also at the end of each minute."""
    tls: CollectorTls = CollectorTls()
    """TLS, for a collector of https://."""

    @property
    def is_exposed(self) -> bool:
        """Whether the token can be read by those on the way: it goes to another host, and not over TLS."""
        return (
            self.token is not None
            and self.collector.startswith("http://")
            and not addresses.is_local_url(self.collector)
        )
