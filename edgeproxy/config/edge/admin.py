"""The admin listener: a socket in the state directory, and optionally an address."""

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from edgeproxy.config import addresses, parsers
from edgeproxy.config.forms import build_any_of, build_words, written
from edgeproxy.config.part import Part
from edgeproxy.config.tokens import AdminToken, read_pairs
from edgeproxy.config.units import format_value, value_error

UNIX = "unix"
"""The value of `admin` for the socket only."""
AN_ADMIN = "unix, HOST:PORT such as 127.0.0.1:9090, or {address: HOST:PORT, tokens: [{name: NAME, sha256: HEX}]}"
GUARD_HINT = "write admin: {address: HOST:PORT, tokens: [{name: NAME, sha256: HEX}]}, or listen on 127.0.0.1"


class Admin(Part):
    """The admin listener.

    ```yaml
    admin:
      address: 0.0.0.0:9090
      hosts: [edge.internal]
      tokens: [{name: ops, sha256: 91c16f0d6cc1bec3c3603972182a07c66ff4fa71618a975e963d6dbe42b6dd37}]
    ```

    `admin: unix` is the socket alone: `admin.sock` in the state directory, for its owner only. Access to the socket
    permits everything, without a token. A reload changes tokens and hosts; another address needs a restart.
    """

    address: Annotated[addresses.Address, BeforeValidator(addresses.read_address), PlainSerializer(str)] | None = Field(
        default=None,
        description="Address in addition to the socket. There, `/healthz`, `/readyz` and `/metrics` are open; all else "
        "needs a token. At a loopback address tokens may be left out: then anybody on the host may use it.",
    )
    tokens: Annotated[tuple[AdminToken, ...], BeforeValidator(read_pairs)] = Field(
        default=(),
        description='Tokens for the address. As one text `NAME:SHA256 NAME:SHA256`, for `"${EDGE_ADMIN_TOKENS:-}"`.',
    )
    hosts: Annotated[
        tuple[Annotated[str, BeforeValidator(addresses.read_server_name)], ...], BeforeValidator(parsers.read_words)
    ] = Field(
        default=(),
        description="Further names of the address, such as the name of a Kubernetes service. A request with any other "
        "`Host` gets 421.",
    )


@written(lambda inner: build_any_of(build_words(UNIX), addresses.ADDRESS, inner), lambda _: UNIX)
def read_admin(value: object) -> object:
    """Read `unix`, an address, or a mapping with an address."""
    if isinstance(value, str) and "://" in value:
        raise value_error(f"{format_value(value)} is a URL", AN_ADMIN)
    if isinstance(value, str) and value.lower() == UNIX:
        return {}
    return {"address": value} if isinstance(value, str | addresses.Address) else value


def validate_admin(admin: Admin) -> Admin:
    """Return the settings. Raises `value_error` if other hosts could reach an address without tokens."""
    if admin.address is None:
        if admin.tokens or admin.hosts:
            raise value_error(
                "has no address, and its socket asks for no tokens", "write address: HOST:PORT beside them"
            )
    elif not admin.tokens and not addresses.is_loopback(admin.address.host):
        raise value_error(f"is {admin.address}, which is not of this host alone, and has no tokens", GUARD_HINT)
    return admin
