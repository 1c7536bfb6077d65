"""The public keys of the issuer of operators' tokens: fetched, kept, and used while no newer ones can be had."""

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import orjson

from edgeproxy.base import log
from edgeproxy.config.collector.operators import read_issuer

FETCH_SECONDS_MAX = 10.0
FRESH_SECONDS = 600.0
"""Seconds after which keys, and what an issuer says of itself, are fetched anew by the next who needs them."""
RETRY_SECONDS = 10.0
"""Seconds between two attempts, also for a key that is not among those that are known."""
BODY_BYTES_MAX = 256 << 10
KEYS_MAX = 50


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = -FRESH_SECONDS
        self._tried = -RETRY_SECONDS
        self._fetching = asyncio.Lock()
        self._log = log.RateLimitedLog(60.0)

    async def with_key(self, name: str) -> dict[str, jwt.PyJWK]:
        """Return the keys by their names, fetched anew where they are old or `name` is not among them."""
        is_awaited = self._fetching.locked() and name not in self._keys
        if is_awaited or self._is_due(name):
            async with self._fetching:
                if self._is_due(name):
                    await self._fetch()
        return self._keys

    def _is_due(self, name: str) -> bool:
        now = time.monotonic()
        unknown = bool(name) and name not in self._keys
        return now - self._tried >= RETRY_SECONDS and (unknown or now - self._fetched >= FRESH_SECONDS)

    async def _fetch(self) -> None:
        self._tried = time.monotonic()
        try:
            metadata = await fetch_metadata(self.issuer)
            timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS_MAX)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                key_set = await _fetch_json(session, read_issuer(str(metadata.get("jwks_uri"))))
            keys = _parse_signing_keys(key_set)
            if not keys:
                raise ValueError("there is no key by which it signs")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            host = urlsplit(self.issuer).hostname
            self._log.error("the issuer's keys cannot be had; those that are known count", str(host), why=str(error))
            return
        self._keys, self._fetched = keys, time.monotonic()


def _parse_signing_keys(key_set: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    """Read the public keys of a JWK set by which tokens are signed; those of other kinds are left out."""
    listed = key_set.get("keys")
    keys = {}
    for key in listed[:KEYS_MAX] if isinstance(listed, list) else ():
        if not isinstance(key, dict) or key.get("use", "sig") != "sig" or key.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            keys[str(key.get("kid", ""))] = jwt.PyJWK(key)
        except jwt.PyJWTError:
            continue
    return keys


async def fetch_metadata(issuer: str) -> dict[str, Any]:
    """Return what an issuer says of itself (OpenID Connect Discovery); raises ValueError and aiohttp.ClientError."""
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS_MAX)
    where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    async with aiohttp.ClientSession(timeout=timeout) as session:
        metadata = await _fetch_json(session, where)
    if metadata.get("issuer") != issuer:
        raise ValueError(f"{where} is of another issuer: {str(metadata.get('issuer'))[:200]!r}")
    return metadata


async def _fetch_json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return the JSON object at a URL; raises ValueError and aiohttp.ClientError."""
    async with session.get(url, allow_redirects=False) as answer:
        return await read_json(answer, url)


async def read_json(answer: aiohttp.ClientResponse, url: str) -> dict[str, Any]:
    """Return the JSON object that is answered; raises ValueError and aiohttp.ClientError."""
    if answer.status != 200:
        raise ValueError(f"{url} answers {answer.status}")
    body = await answer.content.read(BODY_BYTES_MAX + 1)
    while len(body) <= BODY_BYTES_MAX and (more := await answer.content.read(BODY_BYTES_MAX)):
        body += more
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"{url} sends more than {BODY_BYTES_MAX} bytes")
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} sends no JSON object")  # noqa: TRY004 - of what came, not of an argument
    return document
