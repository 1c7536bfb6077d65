"""One end of a TLS connection in the hands of a test, by OpenSSL and by other code than the edge's."""

import asyncio
import socket
import ssl

from tests.support.wire import PATIENCE, READ, Wire


class TlsWire(Wire):
    """A Wire whose bytes go through TLS. The end of the stream is `close_notify`; without it, it was truncated."""

    def __init__(
        self,
        end: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(end)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side, name, session)

    async def shakes_hands(self) -> None:
        """Perform the handshake. Raises ssl.SSLError or ConnectionError if it fails."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._sends_what_there_is()
                await self._feeds()
            except ssl.SSLError:
                await self._sends_what_there_is()
                raise
            else:
                await self._sends_what_there_is()
                return

    async def sends(self, *parts: bytes) -> None:
        if data := b"".join(parts):
            self.tls.write(data)
        await self._sends_what_there_is()

    async def sends_while_taken(self, piece: bytes, most: int) -> int:
        sent = idle = 0
        while sent < most and idle < 200:
            if not self._begun:
                self.tls.write(piece)
                self._begun = self._outgoing.read()
                sent += len(piece)
            try:
                self._begun = self._begun[self._end.send(self._begun) :]
                idle = 0
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0)
        return sent

    def says_last_word(self) -> None:
        """Send `close_notify`, and leave the connection open."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.sends_now(self._outgoing.read())

    async def gets_truncated(self) -> bytes:
        """Whatever comes before the connection ends without a `close_notify`, which it must."""
        try:
            await self.gets_rest()
        except (ssl.SSLEOFError, ConnectionError):
            return self._take(len(self._held))
        raise AssertionError("a last word, after which it looks complete")

    async def has_more(self) -> bool:
        try:
            return bool(self._held) or await self._read()
        except (ConnectionError, ssl.SSLError):
            return False

    def has(self) -> bytes:
        try:
            self._feed(self._end.recv(READ))
            self._decrypts()
        except (BlockingIOError, ConnectionError, ssl.SSLError):
            pass
        return bytes(self._held)

    async def _read(self) -> bool:
        before = len(self._held)
        while True:
            over = self._decrypts()
            if len(self._held) > before:
                return True
            if over:
                return False
            await self._feeds()

    def _decrypts(self) -> bool:
        """Decrypt the received bytes. Return True if the other side has sent close_notify."""
        try:
            while data := self.tls.read(1 << 14):
                self._held += data
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            pass
        return True

    async def _feeds(self) -> None:
        async with asyncio.timeout(PATIENCE):
            self._feed(await asyncio.get_running_loop().sock_recv(self._end, READ))

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _sends_what_there_is(self) -> None:
        if data := self._outgoing.read():
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_sendall(self._end, data)
