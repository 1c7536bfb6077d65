"""The certificates and authorities that edge.yaml names."""

from pathlib import Path

from edgeproxy.config.certificates import format_expiry_warnings
from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.config.tls import Certificate, OutwardTls


def list_certificates(settings: EdgeFile) -> list[Certificate]:
    """List the edge's own certificates in a configuration, each once with its key."""
    named = [pair for listener in settings.listen if listener.tls is not None for pair in listener.tls.pairs]
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
    return format_expiry_warnings(list_certificates(settings), now)
