"""An HTTP/2 upstream controlled by a test: the other side of a Wire, with the library h2."""

from typing import Any

from h2.config import H2Configuration
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes

from tests.support.http2_wire import Http2Peer
from tests.support.wire import Wire

Fields = tuple[tuple[str, str], ...]


class Http2Server(Http2Peer):
    """A connection of streams that the edge opens."""

    def __init__(self, wire: Wire, **settings: int) -> None:
        """`settings` by their names in SettingCodes."""
        config = H2Configuration(
            client_side=False,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(wire, config)
        self._settings = {SettingCodes[name]: value for name, value in settings.items()}

    async def begins(self) -> "Http2Server":
        """Send the preface."""
        self.protocol.initiate_connection()
        if self._settings:
            self.protocol.update_settings(self._settings)
        await self.flushes()
        return self

    async def next_event(self, number: int, *kinds: type) -> Any:
        """Return the next event of a stream of one of these kinds, and drop the events before it."""
        while True:
            while self.events[number]:
                event = self.events[number].pop(0)
                if isinstance(event, kinds):
                    return event
                assert not isinstance(event, StreamReset), event
            await self.reads()

    async def gets_head(self, number: int) -> dict[str, str]:
        """Return the fields of a request; its body is still to be read."""
        event = await self.next_event(number, RequestReceived)
        return dict(event.headers)

    async def gets_request(self, number: int) -> tuple[dict[str, str], bytes, Fields]:
        """Return the fields of a request, its body and its trailers."""
        return await self.gets_head(number), *await self.gets_body(number)

    async def gets_body(self, number: int) -> tuple[bytes, Fields]:
        """Return the body and trailers of a request whose head was read."""
        body, trailers = b"", ()
        while True:
            event = await self.next_event(number, DataReceived, TrailersReceived, StreamEnded)
            if isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, TrailersReceived):
                trailers = tuple(event.headers)
            else:
                return body, trailers

    async def sends_head(self, number: int, status: int, *fields: tuple[str, str], ended: bool = False) -> None:
        """Send the head of an answer."""
        self.protocol.send_headers(number, [(":status", str(status)), *fields], end_stream=ended)
        await self.flushes()

    async def sends_trailers(self, number: int, *fields: tuple[str, str]) -> None:
        """Send trailers, which end the answer."""
        self.protocol.send_headers(number, list(fields), end_stream=True)
        await self.flushes()

    async def resets(self, number: int, code: int) -> None:
        """Reset a stream."""
        self.protocol.reset_stream(number, code)
        await self.flushes()

    async def leaves(self, last: int) -> None:
        """Send GOAWAY: streams above `last` are not served."""
        self.protocol.close_connection(last_stream_id=last)
        await self.flushes()

    def closes(self) -> None:
        """Close the connection."""
        self.wire.closes()
