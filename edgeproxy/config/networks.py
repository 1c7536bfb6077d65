"""Who may come, by address: lists of networks, in the configuration or in files of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from edgeproxy.config import addresses, parsers
from edgeproxy.config.part import Part
from edgeproxy.config.tree import Items, Table

LISTS = ("allow", "deny")
Network = Annotated[addresses.Network, BeforeValidator(addresses.read_network), PlainSerializer(str)]
File = Annotated[Path, BeforeValidator(parsers.read_file)]


class Networks(Part):
    """Which addresses may come: those of `allow`, where it is there, and none of `deny`."""

    allow: tuple[Network, ...] | None = None
    """Who may come; by default everybody."""
    deny: tuple[Network, ...] = ()
    """Who may not, also of those in `allow`."""
    allow_file: File | None = None
    """A file with further networks for `allow`, one in a line."""
    deny_file: File | None = None
    """A file with further networks for `deny`, one in a line."""


class InvalidNetworkListError(Exception):
    """A line of a file that is no network, or a file that cannot be read: what is wrong, what is right."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what, self.hint = what, hint


def read_network_list(file: str) -> tuple[bytes, list[str]]:
    """Return the content of a file, and the networks in it. Empty lines and what follows a # are skipped.

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
    """Yield each `networks` of a tree: that of all, those of routes and those of customers."""
    routes, customers = tree.get("routes"), tree.get("customers")
    owners: list[tuple[tuple[str | int, ...], object]] = [((), tree)]
    owners += [(("routes", n), route) for n, route in enumerate(routes if isinstance(routes, Items) else ())]
    owners += [(("customers", name), one) for name, one in (customers if isinstance(customers, Table) else {}).items()]
    for path, owner in owners:
        networks = owner.get("networks") if isinstance(owner, Table) else None
        if isinstance(networks, Table):
            yield (*path, "networks"), networks
