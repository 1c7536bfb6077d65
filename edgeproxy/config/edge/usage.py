"""Shipping of usage."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers, units
from edgeproxy.config.part import Part
from edgeproxy.config.tls import UpstreamTls


class Usage(Part):
    """Shipping of usage.

    ```yaml
    usage: {collector: "http://127.0.0.1:9100", token: "${COLLECTOR_TOKEN:-}"}
    ```

    Counts are sealed into numbered batches, which stay on disk until the collector has them. A reload may add, change
    and remove `usage`. Without it nothing is sealed or shipped, but counting goes on.
    """

    collector: Annotated[str, BeforeValidator(addresses.read_collector)] = Field(
        description="`http://HOST:PORT` or `https://HOST:PORT` of the collector. Use `https://` to another host: "
        "batches reveal customers' usage, and anybody with the token can ship."
    )
    token: Annotated[str | None, BeforeValidator(parsers.read_token)] = Field(
        default=None,
        repr=False,
        description='Token of the collector with the role `edge`, from the environment: `"${COLLECTOR_TOKEN:-}"`. By '
        "default, or if empty, none.",
    )
    every: Annotated[float, BeforeValidator(units.Time(0.1, 60.0))] = Field(
        default=5.0,
        description="Time after which counts are sealed and shipped. They are also shipped at the end of each minute. "
        "A host that loses power may lose the counts of this time.",
    )
    tls: UpstreamTls = Field(
        default=UpstreamTls(), description="TLS towards a collector with `https://`. An error with `http://`."
    )

    @property
    def is_exposed(self) -> bool:
        """True if others on the network could read the token: it goes to another host without TLS."""
        return (
            self.token is not None
            and self.collector.startswith("http://")
            and not addresses.is_local_url(self.collector)
        )
