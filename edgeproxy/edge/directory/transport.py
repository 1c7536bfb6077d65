"""The interface by which an edge reads the directory, from the hub or from the collector."""

from typing import NamedTuple, Protocol


class News(NamedTuple):
    """The lines of the log that an edge lacks."""

    lines: tuple[bytes, ...]
    """Lines of the log, in order: those after that version where `follows`, else all of them."""
    follows: bool
    """Whether that version is in the log."""
    time: bytes | None
    """The line that says when which version was the newest, if there is one."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no directory at all."""
        return not self.lines and not self.follows


class Transport(Protocol):
    """One place to read the directory. Raises HubUnavailableError, HubRefusalError or UnreadableDirectoryError."""

    name: str
    """`hub` or `collector`."""

    async def fetch_news(self, token: str | None, number: int) -> News:
        """Return what there is beside the version of this token and number (None: the edge has none yet)."""

    async def fetch_part(self, token: str, place: int) -> bytes | None:
        """Return the part of the version with this token at this place; None where it is not there any more."""

    async def wait_for_news(self, seconds: float) -> None:
        """Wait until there may be news, for so many seconds at most."""

    async def close(self) -> None:
        """Close the connections."""
