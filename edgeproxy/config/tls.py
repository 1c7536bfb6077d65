"""TLS towards others, and certificates with their keys."""

from typing import Annotated

from pydantic import BeforeValidator

from edgeproxy.config import addresses
from edgeproxy.config.field_types import File, Switch
from edgeproxy.config.part import Part


class UpstreamTls(Part):
    """TLS towards an upstream."""

    ca: File | None = None
    """A file with the certificates of those who vouch for the upstream; by default the system's."""
    cert: File | None = None
    """The edge's own certificate, with those between it and its root, where the upstream asks for one."""
    key: File | None = None
    """The private key of `cert`."""
    server_name: Annotated[str, BeforeValidator(addresses.read_server_name)] | None = None
    """The name that the upstream's certificate must have; by default the host of the endpoint."""
    verify: Switch = True
    """Whether the upstream has to prove who it is."""


class CollectorTls(UpstreamTls):
    """TLS towards the collector."""

    ca: File | None = None
    """A file with the certificates of those who vouch for the collector; by default the system's."""
    cert: File | None = None
    """The edge's own certificate, with those between it and its root, where the collector asks for one."""
    server_name: Annotated[str, BeforeValidator(addresses.read_server_name)] | None = None
    """The name that the collector's certificate must have; by default the host of its URL."""
    verify: Switch = True
    """Whether the collector has to prove who it is."""


class Certificate(Part):
    """A certificate and its private key."""

    cert: File
    """A file with the certificate, and those between it and its root, in PEM."""
    key: File
    """A file with its private key, in PEM and without a password."""
