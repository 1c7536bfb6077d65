"""Documents of token issuers, fetched over HTTP: their metadata and their JWK Sets (RFC 7517)."""

import aiohttp
import orjson

from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.base.json_values import JsonObject

DOCUMENT_BYTES_MAX = 1 << 20
PEER = HttpPeer("the issuer", 10.0, DOCUMENT_BYTES_MAX)


class InvalidDocumentError(ValueError):
    """An unusable answer with status 200: too large, no JSON object, or without the required content."""


async def fetch_json(url: str) -> JsonObject:
    """Return the JSON object at a URL without following redirects.

    Raises like `read_json`, and OSError and TimeoutError.
    """
    async with open_session(PEER) as session, session.get(url, allow_redirects=False) as response:
        return await read_json(response, url)


async def read_json(response: aiohttp.ClientResponse, source: str) -> JsonObject:
    """Return the JSON object of a response. Raises ValueError, which names the source, and aiohttp.ClientError."""
    if response.status != 200:
        raise ValueError(f"{source} answers {response.status}")
    return parse_document(await response.read(), source)


def parse_document(body: bytes, source: str) -> JsonObject:
    """Return the JSON object in a body. Raises InvalidDocumentError if it is too large or invalid."""
    if len(body) > DOCUMENT_BYTES_MAX:
        raise InvalidDocumentError(f"{source} has more than {DOCUMENT_BYTES_MAX} bytes")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidDocumentError(f"{source} has no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidDocumentError(f"{source} has no JSON object")
    return document


async def fetch_metadata(issuer: str) -> JsonObject:
    """Return the metadata of an issuer (OpenID Connect Discovery). Raises like `fetch_json`."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    metadata = await fetch_json(url)
    if metadata.get("issuer") != issuer:
        raise ValueError(f"{url} is of another issuer: {str(metadata.get('issuer'))[:200]!r}")
    return metadata
