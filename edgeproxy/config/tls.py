"""TLS of outgoing connections, and certificates with their keys."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses
from edgeproxy.config.field_types import File, Switch
from edgeproxy.config.part import Part


class OutwardTls(Part):
    """TLS towards a server that the edge connects to."""

    ca: File | None = Field(default=None, description="Authorities of its certificate. By default the system's.")
    cert: File | None = Field(default=None, description="Own certificate, if the server asks for one. Set `key` too.")
    key: File | None = Field(default=None, description="Private key of `cert`, in PEM and without a password.")
    verify: Switch = Field(
        default=True, description="Verifies the certificate of the server. `false` trusts any server: for tests."
    )


class UpstreamTls(OutwardTls):
    """TLS towards a server whose certificate may have another name than its address."""

    server_name: Annotated[str, BeforeValidator(addresses.read_server_name)] | None = Field(
        default=None,
        description="Name that the certificate must have, if it is not the host of the URL.",
    )


class Certificate(Part):
    """A certificate and its private key."""

    cert: File = Field(description="Certificate and its intermediates, in PEM.")
    key: File = Field(description="Private key of `cert`, in PEM and without a password.")
