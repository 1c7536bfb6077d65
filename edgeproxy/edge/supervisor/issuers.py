"""The public keys of token issuers: fetched at intervals, kept while an issuer is away, and published to workers.

Fetched keys are stored in the state directory, so that an edge that starts while an issuer is away has its keys.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import orjson

from edgeproxy.base import log
from edgeproxy.base.issuer_documents import InvalidDocumentError, fetch_json, parse_document
from edgeproxy.base.signing_keys import WITHOUT_KEYS_SECONDS_MAX, parse_signing_keys
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.edge.issuers import Issuer
from edgeproxy.edge.messages import IssuerKeys
from edgeproxy.edge.metrics import Series

FETCH_SECONDS = 60.0
"""Seconds between two fetches of an issuer's keys, plus or minus a fifth."""
HURRY_SECONDS = 10.0
"""Minimum of seconds between two fetches, however many tokens name an unknown key."""
RETRY_SECONDS = 2.0
"""Seconds until the next fetch while no keys are known yet."""
LOG_SECONDS = 60.0


class IssuerKeyFetcher:
    """The key fetcher for the issuers of a configuration. `publish` sends to all workers, now and at their start."""

    def __init__(self, state: Path, settings: Mapping[str, Issuer], publish: Callable[[IssuerKeys], None]) -> None:
        self._state = state
        self._settings = settings
        self._publish = publish
        self._known: dict[str, str] = {}
        self._fetched_at: dict[str, float] = {}
        """Unix seconds of the last fetch of an issuer's keys; without keys, of the first attempt."""
        self._hurry: dict[str, asyncio.Event] = {}
        """Events by issuer; set to fetch its keys early."""
        self._tasks = Tasks()
        self._rare_log = log.RateLimitedLog(LOG_SECONDS)

    async def begin(self) -> None:
        """Publish the stored keys, and fetch from now on."""
        for name in self._settings:
            try:
                self._known[name] = await asyncio.to_thread(self._file(name).read_text)
                # The time of the file is the time of the last fetch, also across restarts: see `_touch`.
                self._fetched_at[name] = self._file(name).stat().st_mtime
            except (OSError, UnicodeDecodeError):
                self._fetched_at[name] = time.time()
        self._tell()
        self._hurry = {name: asyncio.Event() for name in self._settings}
        for name, issuer in self._settings.items():
            self._tasks.start(f"keys of issuer {name}", self._follow(name, issuer))

    async def follow(self, settings: Mapping[str, Issuer]) -> None:
        """Apply the issuers of another configuration."""
        if settings != self._settings:
            await self.end()
            self._known = {
                # Keys of another URL under an old name would let the wrong issuer sign.
                name: keys
                for name, keys in self._known.items()
                if settings.get(name) == self._settings[name]
            }
            self._settings = settings
            await self.begin()

    def hurry(self, name: str) -> None:
        """Fetch the keys of the issuer with this name early, because a token names an unknown key."""
        if name in self._hurry:
            self._hurry[name].set()

    async def end(self) -> None:
        """Stop fetching."""
        await self._tasks.cancel()

    def series(self) -> list[Series]:
        """Return the seconds since the keys of each issuer were last fetched."""
        now = time.time()
        return [
            ("edge_issuer_keys_age_seconds", (name,), (max(0, int(now - fetched_at)),))
            for name, fetched_at in self._fetched_at.items()
            if name in self._settings
        ]

    def _file(self, name: str) -> Path:
        """Return the file of an issuer's keys.

        Its name depends on the URL, because the keys of another URL may be known to others.
        """
        issuer = self._settings[name]
        source = hashlib.sha256(f"{issuer.issuer}\n{issuer.jwks}".encode()).hexdigest()[:16]
        return self._state / f"issuer-{name}-{source}.jwks"

    def _tell(self) -> None:
        self._publish(IssuerKeys(dict(self._known)))

    async def _follow(self, name: str, issuer: Issuer) -> None:
        """Fetch the keys of an issuer for ever."""
        hurry, stored = self._hurry[name], self._known.get(name)
        while True:
            hurry.clear()
            try:
                keys = await _fetch_jwks(issuer.jwks)
            except (OSError, TimeoutError, aiohttp.ClientError, ValueError) as error:
                message = "the keys of an issuer cannot be had; those that are known count"
                self._rare_log.error(message, name, why=str(error) or type(error).__name__)
                # An issuer that answers without keys has withdrawn them. One that does not answer may only be down.
                if isinstance(error, InvalidDocumentError) and await self._forget_outdated(name):
                    stored = None
            else:
                self._fetched_at[name] = time.time()
                if keys != self._known.get(name):
                    self._known[name] = keys
                    self._tell()
                # Written only when they change, but the time of the file always tells their age.
                if keys == stored:
                    await asyncio.to_thread(_touch, self._file(name))
                elif await self._store(name, keys):
                    stored = keys
            # Random, so that many edges do not fetch at the same moment.
            pause = (FETCH_SECONDS if name in self._known else RETRY_SECONDS) * random.uniform(0.8, 1.2)
            least = min(pause, HURRY_SECONDS)
            # Tokens with invented key ids must not make the edge flood the issuer.
            await asyncio.sleep(least)
            try:
                async with asyncio.timeout(pause - least):
                    await hurry.wait()
            except TimeoutError:
                continue

    async def _forget_outdated(self, name: str) -> bool:
        """Forget the keys of an issuer that has published none for too long. Return whether it did."""
        if name not in self._known or time.time() - self._fetched_at[name] < WITHOUT_KEYS_SECONDS_MAX:
            return False
        del self._known[name]
        self._tell()
        await asyncio.to_thread(self._file(name).unlink, missing_ok=True)
        self._rare_log.error("the keys of an issuer count no more: it has published none for a day", name)
        return True

    async def _store(self, name: str, keys: str) -> bool:
        """Store the keys of an issuer for the next start; return whether the disk took them."""
        try:
            await asyncio.to_thread(_write_whole, self._file(name), keys)
        except OSError as error:
            message = "the keys of an issuer cannot be stored: without it, the next start would lack them"
            self._rare_log.error(message, name, why=str(error))
            return False
        return True


async def _fetch_jwks(where: str) -> str:
    """Return the JWK Set at this URL or path.

    Raises InvalidDocumentError if an answer of 200, or the file, has no usable key; ValueError for any other answer;
    OSError, TimeoutError and ClientError without an answer.
    """
    if "://" in where:
        document = await fetch_json(where)
    else:
        document = parse_document(await asyncio.to_thread(Path(where).read_bytes), where)
    try:
        keys = await asyncio.to_thread(parse_signing_keys, document)
    except ValueError as error:
        raise InvalidDocumentError(f"{where}: {error}") from None
    if not keys:
        raise InvalidDocumentError(f"{where} has no key that can be used")
    return orjson.dumps(document).decode()


def _touch(file: Path) -> None:
    """Set the file's time to the last fetch, because the next start reads it."""
    with contextlib.suppress(OSError):
        os.utime(file)


def _write_whole(file: Path, text: str) -> None:
    """Write a file atomically."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text)
    os.replace(part, file)
