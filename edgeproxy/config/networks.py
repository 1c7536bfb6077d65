"""Lists of permitted or refused networks, in the configuration or in files."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field
from pydantic_core import PydanticCustomError

from edgeproxy.config import addresses
from edgeproxy.config.field_types import File, Network
from edgeproxy.config.part import Part
from edgeproxy.config.tree import Items, Table

LISTS = ("allow", "deny")


class Networks(Part):
    """Networks at the top, of a route or of a customer. All that apply must allow an address.

    ```yaml
    networks: {deny: [192.0.2.0/24], deny_file: lists/drop.txt}
    routes: [{path: /admin/*, upstream: api, networks: {allow: [10.0.0.0/8, "fd00::/8"]}}]
    ```

    The check is one look-up for any number of networks: [which addresses are let in](access.md).
    """

    allow: tuple[Network, ...] | None = Field(default=None, description="Networks that are allowed. By default all.")
    deny: tuple[Network, ...] = Field(default=(), description="Networks that are denied, even if they are in `allow`.")
    allow_file: File | None = Field(
        default=None,
        description="File with further networks for `allow`, one per line; a `#` starts a comment. A reload reads it "
        "again.",
    )
    deny_file: File | None = Field(default=None, description="File with further networks for `deny`, in the same form.")


class InvalidNetworkListError(Exception):
    """A file of networks that cannot be read or has an invalid line: the problem and a hint."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what, self.hint = what, hint


def read_network_list(file: str) -> tuple[bytes, list[str]]:
    """Return the content of a file, and its networks. Empty lines and comments after a # are skipped.

    Raises InvalidNetworkListError.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise InvalidNetworkListError(
            f"{file} cannot be read: {error.strerror}", "name a file that can be read"
        ) from None
    networks = []
    for number, line in enumerate(content.decode("latin-1").splitlines(), 1):
        written = line.partition("#")[0].strip()
        if written:
            try:
                addresses.read_network(written)
            except PydanticCustomError as error:
                context = error.context or {}
                raise InvalidNetworkListError(
                    f"line {number} of {file}: {context.get('what')}", str(context.get("hint"))
                ) from None
            networks.append(written)
    return content, networks


def list_network_sections(tree: Table) -> Iterator[tuple[tuple[str | int, ...], Table]]:
    """Yield each `networks` mapping of a tree: first the general one, then the ones of routes and customers."""
    routes, customers = tree.get("routes"), tree.get("customers")
    owners: list[tuple[tuple[str | int, ...], object]] = [((), tree)]
    owners += [(("routes", n), route) for n, route in enumerate(routes if isinstance(routes, Items) else ())]
    # A flat mapping has no networks, and there may be a hundred thousand of them.
    owners += [
        (("customers", name), customer)
        for name, customer in (customers if isinstance(customers, Table) else {}).items()
        if type(customer) is Table
    ]
    for path, owner in owners:
        networks = owner.get("networks") if isinstance(owner, Table) else None
        if isinstance(networks, Table):
            yield (*path, "networks"), networks
