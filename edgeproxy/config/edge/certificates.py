"""The certificates and authorities that edge.yaml names."""

from pathlib import Path

from edgeproxy.config.certificates import format_expiry_warnings
from edgeproxy.config.edge.listeners import ACME_FOLDER
from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.config.tls import Certificate, OutwardTls


def list_certificates(settings: EdgeFile) -> list[Certificate]:
    """List the edge's own certificates in a configuration, each once with its key. Those by ACME may not exist yet."""
    inward = [listener.tls for listener in settings.listen if listener.tls is not None]
    named = [pair for tls in inward for pair in tls.list_pairs(settings.state)]
    for tls in _list_outward_tls(settings):
        if tls.cert is not None and tls.key is not None:
            named.append(Certificate(cert=tls.cert, key=tls.key))
    return list(dict.fromkeys(named))


def list_authority_files(settings: EdgeFile) -> list[Path]:
    """List the files of authorities in a configuration, each once."""
    named = [listener.tls.client_ca for listener in settings.listen if listener.tls is not None]
    named += [tls.ca for tls in _list_outward_tls(settings)]
    named += settings.trust.files
    return [file for file in dict.fromkeys(named) if file is not None]


def _list_outward_tls(settings: EdgeFile) -> list[OutwardTls]:
    """List the TLS settings of outgoing connections."""
    towards: list[OutwardTls] = [upstream.tls for upstream in settings.upstreams.values()]
    towards.append(settings.hub.tls)
    towards += [usage.tls for usage in settings.list_usages().values()]
    towards += [tracing.tls for tracing in (settings.tracing,) if tracing is not None]
    return towards


def list_expiry_warnings(settings: EdgeFile, now: float) -> list[str]:
    """List the results of `describe_expiry` for all certificates of a configuration, each after the name of its file.

    Raises InvalidCertificateError.
    """
    # Files of acme are the supervisor's own: they may be missing, or unreadable for the user who checks.
    own = settings.state / ACME_FOLDER
    return format_expiry_warnings((pair for pair in list_certificates(settings) if pair.cert.parent != own), now)
