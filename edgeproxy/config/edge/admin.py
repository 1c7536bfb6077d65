"""The admin listener as operators write it: a socket in the state directory, and where they want it an address."""

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from edgeproxy.config import addresses, parsers
from edgeproxy.config.part import Part
from edgeproxy.config.tokens import AdminToken, read_pairs
from edgeproxy.config.units import format_value, value_error

UNIX = "unix"
"""How it is written that there is the socket alone."""
AN_ADMIN = "unix, HOST:PORT such as 127.0.0.1:9090, or {address: HOST:PORT, tokens: [{name: NAME, sha256: HEX}]}"
GUARD_HINT = "write admin: {address: HOST:PORT, tokens: [{name: NAME, sha256: HEX}]}, or listen on 127.0.0.1"


class Admin(Part):
    """Where operators ask for health, metrics and usage. The socket in the state directory is always there."""

    address: Annotated[addresses.Address, BeforeValidator(addresses.read_address), PlainSerializer(str)] | None = None
    """HOST:PORT; by default there is the socket alone."""
    tokens: Annotated[tuple[AdminToken, ...], BeforeValidator(read_pairs)] = ()
    """Who may ask at the address for more than health and metrics; on a loopback address without them everybody."""
    hosts: Annotated[
        tuple[Annotated[str, BeforeValidator(addresses.read_server_name)], ...], BeforeValidator(parsers.read_words)
    ] = ()
    """Names by which the address is asked too, such as edge.internal."""


def read_admin(value: object) -> object:
    """Read `unix`, an address, or a mapping with it."""
    if isinstance(value, str) and "://" in value:
        raise value_error(f"{format_value(value)} is a URL", AN_ADMIN)
    if isinstance(value, str) and value.lower() == UNIX:
        return {}
    return {"address": value} if isinstance(value, str | addresses.Address) else value


def validate_admin(admin: Admin) -> Admin:
    """Return it; raises `value_error` where others than this host reach it and nobody is asked for a token."""
    if admin.address is None:
        if admin.tokens or admin.hosts:
            raise value_error(
                "has no address, and its socket asks for no tokens", "write address: HOST:PORT beside them"
            )
    elif not admin.tokens and not addresses.is_loopback(admin.address.host):
        raise value_error(f"is {admin.address}, which is not of this host alone, and has no tokens", GUARD_HINT)
    return admin
