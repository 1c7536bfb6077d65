"""Where clients send their keys."""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from edgeproxy.config import parsers, units
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

AUTHORIZATION = "authorization"

CERTIFICATE = b"certificate\0"
"""What the name in a certificate has before it where its SHA-256 is taken. No key that a client sends begins so."""


def compute_certificate_digest(name: str) -> bytes:
    """Where the name in a client's certificate is among the digests of keys."""
    return hashlib.sha256(CERTIFICATE + name.encode()).digest()


def add_certificate_digest(key: Any) -> Any:
    """A key as it is written, with the digest of the certificate's name where it is one."""
    name = key.get("certificate") if isinstance(key, dict) else None
    return (
        {**key, "sha256": compute_certificate_digest(name).hex()}
        if isinstance(name, str) and "sha256" not in key
        else key
    )


def read_certificate_name(value: object) -> str:
    """Read the name in a certificate."""
    name = read_text(value, A_CERTIFICATE_NAME)
    if not name or not name.isprintable():
        raise value_error(f"{format_value(name)} is not the name in a certificate", A_CERTIFICATE_NAME)
    return name


A_CERTIFICATE_NAME = "the name as it stands in the certificate, such as acme"


class Auth(Part):
    """Where clients send their keys."""

    fields: Annotated[
        tuple[Annotated[str, BeforeValidator(parsers.read_key_field)], ...],
        BeforeValidator(parsers.read_key_fields),
    ] = ("X-API-Key", "Authorization")
    """The fields that may hold a key; of those that a request has the first one does. Authorization: as Bearer KEY."""
    query: Annotated[str | None, BeforeValidator(parsers.read_parameter)] = None
    """The parameter of the query that may hold a key; by default `none`."""
    cookie: Annotated[str | None, BeforeValidator(parsers.read_parameter)] = None
    """The cookie that may hold a key; by default `none`."""
    websocket_protocol: Annotated[bool, BeforeValidator(units.read_switch)] = False
    """Whether a WebSocket's key may be among its subprotocols, as api-key.KEY."""
    certificate: Literal["CN", "DNS", "URI", "email"] = "CN"
    """Which name of a client's certificate says who that is: the common name of its subject, or one of its subject
    alternative names."""

    @property
    def key_instructions(self) -> str:
        """How to send a key, for those who sent none."""
        ways = [
            "Authorization: Bearer KEY" if field.lower() == AUTHORIZATION else f"{field}: KEY" for field in self.fields
        ]
        return f"Send it as {' or '.join(ways)}"
