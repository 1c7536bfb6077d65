"""API keys in queries, for clients that can set no field: found in a request line, and removed from it. Pure."""

from urllib.parse import unquote_to_bytes

from edgeproxy.edge.errors import RejectedError

VERSION_BYTES = len(b" HTTP/1.1\r\n")


def find_key(first: bytes, name: bytes) -> bytes | None:
    """Return the key in the query of a request line, under the parameter `name`; None without that parameter.

    Raises RejectedError(400) if there are several.
    """
    _, _, query = first[:-VERSION_BYTES].partition(b"?")
    values = [
        value for pair in query.split(b"&") for each, _, value in (pair.partition(b"="),) if _is_named(each, name)
    ]
    if len(values) > 1:
        raise RejectedError(400, f"The parameter {name.decode()} is repeated", close=False)
    return unquote_to_bytes(values[0]) if values else None


def remove_key(first: bytes, name: bytes) -> bytes:
    """Return the request line without the parameter `name`; it has a version of HTTP/1.1, and its CRLF."""
    line, version = first[:-VERSION_BYTES], first[-VERSION_BYTES:]
    target, question, query = line.partition(b"?")
    if not question:
        return first
    pairs = query.split(b"&")
    remaining = [pair for pair in pairs if not _is_named(pair.partition(b"=")[0], name)]
    if len(remaining) == len(pairs):
        return first
    return target + (question + b"&".join(remaining) if remaining else b"") + version


def _is_named(written: bytes, name: bytes) -> bool:
    return written == name or unquote_to_bytes(written) == name
