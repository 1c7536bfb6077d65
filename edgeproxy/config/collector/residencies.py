"""Collectors of other residencies. The console shows their sums beside its own."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers
from edgeproxy.config.field_types import File
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault, list_members
from edgeproxy.config.tree import Table

RESIDENCIES_MAX = 20


class OtherResidency(Part):
    """The collector of another residency. Only [sums](residency.md#sums-of-all-residencies) are read from it.

    ```yaml
    residencies:
      us: {url: "https://us.example.com:9100", token: "${US_SUMS_TOKEN:-}"}
    ```
    """

    url: Annotated[str, BeforeValidator(addresses.read_collector)] = Field(
        description="`https://HOST:PORT` of its collector; `http://` is allowed for this host only."
    )
    token: Annotated[str | None, BeforeValidator(parsers.read_token)] = Field(
        default=None,
        repr=False,
        description="Token of that collector with the role `aggregates`, from the environment. By default none.",
    )
    ca: File | None = Field(default=None, description="Authorities of its certificate. By default the system's.")


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find other residencies that are this one, or whose sums and tokens others on the network could read."""
    own = tree.get("residency")
    for path, other in list_members(tree, "residencies"):
        if path[-1] == own:
            yield Fault(path, "is the residency of this collector", "name the others alone")
        url = other.get("url")
        if isinstance(url, str) and url.startswith("http://") and not addresses.is_local_url(url):
            yield Fault((*path, "url"), "is reached in the clear, and the token with it", "write https://")
