"""The directory as the collector publishes it, over HTTP: each look waits there until there is something new."""

import asyncio
import ssl
from time import monotonic

import aiohttp
import orjson

from edgeproxy.config.models import CollectorTls, Usage
from edgeproxy.directory.transport import News
from edgeproxy.directory.versions import Unreadable
from edgeproxy.hub.redis import Away
from edgeproxy.usage.transport import CONNECT_SECONDS, why

WAIT_SECONDS = 30
"""Seconds that a look waits in the collector."""
ANSWER_SECONDS = 30.0
"""Seconds that an answer may take beyond that."""
REST_SECONDS = 0.05
"""Seconds between two looks at least."""
ANSWER_BYTES_MAX = 64 << 20
"""Bytes of an answer: the largest is a part of a version."""


class CollectorLog:
    """The transport `collector`: that of `usage`, with its token."""

    name = "collector"

    def __init__(self, usage: Usage) -> None:
        self._url = usage.collector.rstrip("/") + "/v1/directory"
        self._server_name = usage.tls.server_name
        self._fields = {} if usage.token is None else {"Authorization": f"Bearer {usage.token}"}
        self._tls = usage.tls if usage.collector.startswith("https://") else None
        self._session: aiohttp.ClientSession | None = None
        self._is_patient = False
        """Whether what there was is known: then a look waits for more."""
        self._looked_at = 0.0

    async def look(self, token: str | None, number: int) -> News:
        """As Transport."""
        wait = WAIT_SECONDS if self._is_patient and token is not None else 0
        self._is_patient = False
        asked = {"wait": str(wait)} if token is None else {"after": token, "wait": str(wait)}
        self._looked_at = monotonic()
        body = await self._get(self._url, asked)
        try:
            said = orjson.loads(body)
            follows, time = said["follows"], said["time"]
            lines = tuple([line.encode() for line in said["lines"]])
            news = News(lines, follows is True, None if time is None else time.encode())
        except (ValueError, LookupError, TypeError, AttributeError) as odd:
            raise Unreadable("the collector's answer cannot be read: is it one?") from odd
        return news

    async def part(self, token: str, place: int) -> bytes | None:
        """As Transport."""
        return await self._get(f"{self._url}/parts/{token}/{place}", {}, missing=True)

    async def wait(self, seconds: float) -> None:
        """As Transport: the next look waits, in the collector."""
        self._is_patient = True
        await asyncio.sleep(max(0.0, REST_SECONDS - (monotonic() - self._looked_at)))

    async def close(self) -> None:
        """As Transport."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self) -> aiohttp.ClientSession:
        """A session with the TLS that is configured. Raises OSError where its files cannot be read."""
        tls = True if self._tls is None else await asyncio.to_thread(context, self._tls)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS + ANSWER_SECONDS, connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _get(self, url: str, asked: dict[str, str], *, missing: bool = False) -> bytes:
        """What is there. Raises Away, and Unreadable where it is `missing`."""
        if self._session is None:
            self._session = await self._open()
        try:
            async with self._session.get(
                url, params=asked, headers=self._fields, allow_redirects=False, server_hostname=self._server_name
            ) as answer:
                body = await _whole(answer.content)
        except TimeoutError as late:
            await self.close()
            raise Away("the collector gave no answer in time") from late
        except aiohttp.ClientError as failure:
            await self.close()  # With the next session certificates are read again: they may have been renewed.
            raise Away(f"the collector: {why(failure)}") from failure
        if answer.status == 404 and missing:
            raise Unreadable("a part of the directory has left the collector")
        if answer.status != 200:
            raise Away(f"the collector answers {answer.status}: {_detail(body)}")
        return body


def context(tls: CollectorTls) -> ssl.SSLContext:
    """The TLS towards a collector. Raises OSError."""
    made = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.cert is not None:
        made.load_cert_chain(tls.cert, tls.key)
    if not tls.verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


async def _whole(content: aiohttp.StreamReader) -> bytes:
    pieces, size = [], 0
    while piece := await content.read(1 << 20):
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise Unreadable("the collector answers more than any part of the directory has")
        pieces.append(piece)
    return b"".join(pieces)


def _detail(body: bytes) -> str:
    """Why, as a problem says it."""
    try:
        return str(orjson.loads(body)["detail"])[:200]
    except (ValueError, LookupError, TypeError):
        return "no problem that can be read"
