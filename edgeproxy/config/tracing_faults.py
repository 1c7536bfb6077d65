"""Checks across the settings of `tracing`, in the parsed tree of an edge.yaml or a collector.yaml."""

from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit

from edgeproxy.config import parsers
from edgeproxy.config.references import Fault, find_outward_tls_faults
from edgeproxy.config.tree import Table

GRPC = "grpc"
PACKAGES = {"tracing": ("opentelemetry.proto",), "tracing-grpc": ("opentelemetry.proto", "grpc")}
"""The additional packages that tracing requires, by the extra that installs them."""


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find missing packages, a path that the protocol does not use, and TLS without effect."""
    tracing = tree.get("tracing")
    if not isinstance(tracing, Table):
        return
    endpoint, is_grpc = str(tracing.get("endpoint", "")), tracing.get("protocol") == GRPC
    extra = "tracing-grpc" if is_grpc else "tracing"
    if not all(is_installed(package) for package in PACKAGES[extra]):
        yield Fault(("tracing",), "needs packages that are not installed", f"pip install 'edgeproxy[{extra}]'")
    if is_grpc and urlsplit(endpoint).path.strip("/"):
        yield Fault(("tracing", "endpoint"), "has a path, which gRPC has not", "write http://HOST:PORT")
    tls = tracing.get("tls")
    if isinstance(tls, Table) and tls:
        plain = endpoint.lower().startswith("http://")
        yield from find_outward_tls_faults(("tracing", "tls"), tls, "a receiver of http://" if plain else None)
        verify = tls.get("verify")
        if is_grpc and isinstance(verify, str) and verify.lower() in parsers.OFF:
            yield Fault(("tracing", "tls", "verify"), "cannot be false with gRPC", "write ca: FILE")


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # A parent package is missing.
        return False
