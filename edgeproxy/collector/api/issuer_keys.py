"""The public keys of the issuer of operators' tokens. Old keys are fetched again, but used while the issuer is down."""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
import jwt

from edgeproxy.base import log
from edgeproxy.base.issuer_documents import InvalidDocumentError, fetch_json, fetch_metadata
from edgeproxy.base.signing_keys import WITHOUT_KEYS_SECONDS_MAX, parse_signing_keys
from edgeproxy.config.collector.operators import read_issuer

FRESH_SECONDS = 600.0
"""Maximum age of the issuer's metadata, in seconds. The next sign-in after that fetches it again."""
KEYS_FRESH_SECONDS = 60.0
"""Maximum age of keys, in seconds. The next request after that fetches them again.

A key that the issuer has replaced, or withdrawn because it was stolen, is accepted for this long.
"""
RETRY_SECONDS = 10.0
"""Seconds between two attempts, also for an unknown key."""


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._keys: list[jwt.PyJWK] = []
        self._fetched = -KEYS_FRESH_SECONDS
        self._tried = -RETRY_SECONDS
        self._fetching = asyncio.Lock()
        self._log = log.RateLimitedLog(60.0)

    async def with_key(self, name: str) -> Sequence[jwt.PyJWK]:
        """Return the keys. They are fetched first if they are old or lack this name."""
        is_awaited = self._fetching.locked() and not self._has_key(name)
        if is_awaited or self._is_due(name):
            async with self._fetching:
                if self._is_due(name):
                    await self._fetch()
        return self._keys

    def _has_key(self, name: str) -> bool:
        return any(key.key_id == name for key in self._keys)

    def _is_due(self, name: str) -> bool:
        now = time.monotonic()
        unknown = bool(name) and not self._has_key(name)
        return now - self._tried >= RETRY_SECONDS and (unknown or now - self._fetched >= KEYS_FRESH_SECONDS)

    async def _fetch(self) -> None:
        self._tried = time.monotonic()
        try:
            metadata = await fetch_metadata(self.issuer)
            key_set = await fetch_json(read_issuer(str(metadata.get("jwks_uri"))))
            keys = parse_signing_keys(key_set)
            if not keys:
                raise InvalidDocumentError("there is no key by which it signs")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            host = urlsplit(self.issuer).hostname
            self._log.error(
                "the issuer's keys cannot be had; those that are known count",
                str(host),
                why=str(error) or type(error).__name__,
            )
            if isinstance(error, InvalidDocumentError) and self._tried - self._fetched > WITHOUT_KEYS_SECONDS_MAX:
                self._keys = []
            return
        self._keys, self._fetched = keys, time.monotonic()
