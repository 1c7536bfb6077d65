"""Flow control of HTTP/2 for a client that sends (RFC 9113 section 5.2)."""

from struct import iter_unpack, unpack_from

from loadtest.neighbours import frames

_INITIAL_WINDOW_SIZE = 4
_DEFAULT = 65_535


class Windows:
    """The octets that the connection and each of its streams may still carry."""

    def __init__(self, streams: range) -> None:
        self.connection = self._first = _DEFAULT
        self.streams = dict.fromkeys(streams, _DEFAULT)

    def take(self, stream: int, octets: int) -> int:
        """Take at most so many octets; returns how many there were."""
        taken = max(0, min(octets, self.connection, self.streams.get(stream, 0)))
        if taken:
            self.connection -= taken
            self.streams[stream] -= taken
        return taken

    def receive(self, inbox: bytearray) -> bytes:
        """Remove the whole frames from the inbox; returns the acknowledgements that they ask for."""
        answers = b""
        while len(inbox) >= 9 and len(inbox) >= 9 + (length := int.from_bytes(inbox[:3], "big")):
            kind, flags, stream = inbox[3], inbox[4], int.from_bytes(inbox[5:9], "big")
            payload = bytes(inbox[9 : 9 + length])
            del inbox[: 9 + length]
            if kind == frames.WINDOW_UPDATE:
                self._open(stream, unpack_from(">I", payload)[0])
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                first = dict(iter_unpack(">HI", payload)).get(_INITIAL_WINDOW_SIZE, self._first)
                change, self._first = first - self._first, first
                self.streams = {each: room + change for each, room in self.streams.items()}
                answers += frames.frame(frames.SETTINGS, frames.ACK)
            elif kind == frames.PING and not flags & frames.ACK:
                answers += frames.frame(frames.PING, frames.ACK, 0, payload)
            elif kind == frames.RST_STREAM:
                self.streams.pop(stream, None)
        return answers

    def _open(self, stream: int, octets: int) -> None:
        if not stream:
            self.connection += octets
        elif stream in self.streams:
            self.streams[stream] += octets
