"""All readable paths of a collector's API, for each of some customers and without a customer."""

from collections.abc import Collection, Iterator, Mapping

from edgeproxy.collector.api.endpoint import Endpoint
from edgeproxy.collector.api.groups import GROUPS
from tests.support.site import AN_ID, PLACES


class Places(dict[str, str]):
    """The values of parameters; unknown parameters get an id of no object."""

    def __missing__(self, key: str) -> str:
        return AN_ID


def list_endpoints() -> Iterator[Endpoint]:
    """List all readable endpoints."""
    yield from (endpoint for group in GROUPS for endpoint in group.endpoints if endpoint.method == "GET")


def list_paths(customers: Collection[str], places: Mapping[str, str] = PLACES) -> list[str]:
    """Return the paths of readable objects, of each customer and without one."""
    paths = []
    for endpoint in list_endpoints():
        for customer in customers:
            path = endpoint.path.format_map(Places({**places, "customer": customer}))
            # Other endpoints refuse the parameter before they read a row.
            paths += [path, f"{path}?customer={customer}"] if "customer" in endpoint.query.model_fields else [path]
    return list(dict.fromkeys(paths))
