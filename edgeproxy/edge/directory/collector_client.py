"""The client of the collector's directory, over HTTP, with the token and the TLS of `usage`."""

import asyncio

import aiohttp
import orjson

from edgeproxy.base.http_peer import AnswerBoundError, HttpPeer, open_session
from edgeproxy.base.trust import TlsFiles
from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.usage.transport import CONNECT_SECONDS, describe_error
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.wire.directory_versions import FOLLOWER_FIELD, UnreadableDirectoryError

WAIT_SECONDS = 30
"""Seconds that a request may wait in the collector for news."""
ANSWER_SECONDS = 30.0
"""Seconds that an answer may take beyond that."""
PEER = HttpPeer("the collector", WAIT_SECONDS + ANSWER_SECONDS, 64 << 20, CONNECT_SECONDS)
"""The largest body is a part of a version of the directory."""


class CollectorClient:
    """One collector, below /v1/directory."""

    def __init__(self, usage: Usage, follower: str | None = None) -> None:
        """`follower` names the edge to the collector, which lists the version of each edge."""
        self._url = usage.collector.rstrip("/") + "/v1/directory"
        self._server_name = usage.tls.server_name
        self._fields = {} if usage.token is None else {"Authorization": f"Bearer {usage.token}"}
        if follower is not None:
            self._fields[FOLLOWER_FIELD] = follower
        self._tls = usage.tls if usage.collector.startswith("https://") else None
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, params: dict[str, str], *, missing: bool = False) -> bytes:
        """Return the body of an answer 200.

        Raises HubUnavailableError. With `missing`, a 404 raises UnreadableDirectoryError.
        """
        if self._session is None:
            self._session = await self._open()
        try:
            async with self._session.get(
                self._url + path,
                params=params,
                headers=self._fields,
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as response:
                body = await response.read()
        except TimeoutError as error:
            await self.close()
            raise HubUnavailableError("the collector gave no answer in time") from error
        except AnswerBoundError as error:
            await self.close()
            raise UnreadableDirectoryError(str(error)) from error
        except aiohttp.ClientError as error:
            await self.close()  # The next session reads the certificates again: they may have been renewed.
            raise HubUnavailableError(f"the collector: {describe_error(error)}") from error
        if response.status == 404 and missing:
            raise UnreadableDirectoryError("a part of the directory has left the collector")
        if response.status != 200:
            raise HubUnavailableError(f"the collector answers {response.status}: {_parse_detail(body)}")
        return body

    async def close(self) -> None:
        """Close the session; the next request opens another."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self) -> aiohttp.ClientSession:
        """Open a session with the configured TLS. Raises OSError if its files cannot be read."""
        tls = self._tls
        if tls is None:
            return open_session(PEER)
        files = TlsFiles.from_settings(tls)
        await asyncio.to_thread(files.create_context)  # It raises errors of the files, and is stored for connections.
        return open_session(PEER, tls=files)


def _parse_detail(body: bytes) -> str:
    """Return the detail of a problem (RFC 9457)."""
    try:
        return str(orjson.loads(body)["detail"])[:200]
    except (ValueError, LookupError, TypeError):
        return "no problem that can be read"
