"""The messages of a gRPC call: their number in one direction of it, read in any pieces.

A message is a byte that says whether it is compressed, its length in four bytes, and its bytes
("Length-Prefixed-Message" of gRPC over HTTP/2). Only prefixes are looked at, so only a part of one is kept.
"""

from typing import Final

PREFIX_BYTES: Final = 5


class MessageScanner:
    """Finds the ends of messages in the bytes of one direction."""

    __slots__ = ("_bytes_left", "_prefix")

    def __init__(self) -> None:
        self._prefix = b""
        """The part of a prefix that is not whole yet."""
        self._bytes_left = 0
        """Bytes that are still to come of a message whose prefix has come."""

    def count_ends(self, data: bytes) -> int:
        """Return how many messages end in the next bytes, compressed or not. An unfinished message does not count."""
        if self._bytes_left > len(data):
            self._bytes_left -= len(data)
            return 0
        count = 1 if self._bytes_left else 0
        position = self._bytes_left
        if self._prefix:
            data = self._prefix + data
        end = len(data)
        while end - position >= PREFIX_BYTES:
            position += PREFIX_BYTES + int.from_bytes(data[position + 1 : position + PREFIX_BYTES], "big")
            if position > end:
                break
            count += 1
        self._bytes_left = max(0, position - end)
        self._prefix = data[position:]
        return count
