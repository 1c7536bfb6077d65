"""Customers' own webhooks: `webhooks` in collector.yaml."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.field_types import Network
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_text, value_error

KEY_BYTES = 32
A_KEY = "write 32 bytes in Base64, as `openssl rand -base64 32` makes them, best from the environment: ${WEBHOOK_KEY}"


@written(build_text("32 bytes in Base64", r"[A-Za-z0-9+/]{43}="))
def read_encryption_key(value: object) -> str:
    """Read a key that encrypts secrets. Errors do not show it."""
    key = read_text(value, A_KEY)
    if len(parsers.decode_base64(key)) != KEY_BYTES:
        raise value_error("is no such key", A_KEY)
    return key


EncryptionKey = Annotated[str, BeforeValidator(read_encryption_key)]


class Webhooks(Part):
    """[Webhooks of customers](webhooks.md): the permitted targets, and the storage of secrets. A reload applies it."""

    encryption: Annotated[tuple[EncryptionKey, ...], BeforeValidator(parsers.read_list), Field(min_length=1)] = Field(
        repr=False,
        description="Key that encrypts the secrets of endpoints in the database: 32 bytes in Base64. In a list, the "
        "first key encrypts and all keys decrypt. Keep the previous key until each endpoint has a secret encrypted "
        "with the new one.",
    )
    networks: tuple[Network, ...] = Field(
        default=(),
        description="Networks beside the public Internet that customers may send to, also over `http://`. By default "
        "none: see [what an endpoint may reach](webhooks.md#what-an-endpoint-may-reach).",
    )
