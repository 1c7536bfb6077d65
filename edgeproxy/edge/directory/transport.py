"""The interface of an edge to the directory, in the hub or in the collector."""

from typing import NamedTuple, Protocol


class News(NamedTuple):
    """The lines of the log that an edge lacks."""

    lines: tuple[bytes, ...]
    """Lines of the log, in order: if `follows`, the lines after the edge's version, else all of them."""
    follows: bool
    """True if the edge's version is in the log."""
    time: bytes | None
    """The line with the time when a version was the newest, if there is one."""

    @property
    def is_empty(self) -> bool:
        """True if there is no directory at all."""
        return not self.lines and not self.follows


class Transport(Protocol):
    """A source of the directory. Raises HubUnavailableError, HubRefusalError or UnreadableDirectoryError."""

    name: str
    """`hub` or `collector`."""

    async def fetch_news(self, token: str | None, number: int) -> News:
        """Return the news after the version of this token and number (None: the edge has none yet)."""

    async def fetch_part(self, token: str, place: int) -> bytes | None:
        """Return the part of the version with this token at this place; None if it is not there any more."""

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until there may be news, for at most `seconds`."""

    async def close(self) -> None:
        """Close the connections."""
