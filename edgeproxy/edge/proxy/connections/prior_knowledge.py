"""Connections without TLS whose clients may know that HTTP/2 is supported, and begin with it (RFC 9113 section 3.3).

Such a connection is treated as HTTP/1.1 until its first head turns out to be the preface, which is not a valid HTTP/1.1
request. So other clients pay nothing for it. Later on a connection the preface is a bad request like any other: a proxy
that sends requests of several clients over one connection must not let one of them change its protocol.
"""

import asyncio
from typing import Final, cast

from edgeproxy.edge.http2.frames import PREFACE
from edgeproxy.edge.proxy.connections.client import Client
from edgeproxy.edge.proxy.connections.client_states import CLOSED
from edgeproxy.edge.proxy.connections.http2_client import Http2Client

PREFACE_HEAD: Final = PREFACE[:18]
"""The part of the preface that looks like a request's head."""


class PlainClient(Client):
    """A client without TLS, which speaks HTTP/1.1 unless its first bytes are the preface of HTTP/2."""

    __slots__ = ("_first_deadline",)

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._first_deadline = self.deadline
        """The deadline of the first head. Any later request has another one, so this shows whether there was any."""

    @property
    def _is_first(self) -> bool:
        return self.deadline == self._first_deadline

    def _keep_partial_head(self, data: bytes, deadline: float) -> None:
        is_first = self._is_first
        if is_first and data and PREFACE_HEAD.startswith(data) and not self.half_closed:
            self.exchange = None
            self.buffer = data
            return
        super()._keep_partial_head(data, deadline)
        if is_first:
            self._first_deadline = self.deadline

    def hand_over(self, data: bytes) -> bool:
        """Let an HTTP/2 client read these bytes again, if they are the connection's first and begin with the
        preface.
        """
        if not (data.startswith(PREFACE_HEAD) and self._is_first):
            return False
        transport, self.exchange, self.state = self.transport, None, CLOSED
        self.runtime.connections.hand_over(self)
        data += self.release_backlog()
        if not self.reading:
            transport.resume_reading()
        client = Http2Client(self.runtime, self.peer, self.subject)
        transport.set_protocol(cast("asyncio.Protocol", client))
        client.connection_made(transport)
        client.data_received(data)
        return True
