"""Where an edge reads the directory: what its follower asks, be it of the hub or of the collector."""

from typing import NamedTuple, Protocol


class News(NamedTuple):
    """What there is beside the version that an edge has."""

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
    """One place to read the directory. Raises Away, ResponseError or Unreadable."""

    name: str
    """`hub` or `collector`."""

    async def look(self, token: str | None, number: int) -> News:
        """What there is beside the version of this token and number (None: there is none yet)."""

    async def part(self, token: str, place: int) -> bytes | None:
        """The part of the version with this token at this place; None where it is not there any more."""

    async def wait(self, seconds: float) -> None:
        """Wait until it is worth looking again, for so long at most."""

    async def close(self) -> None:
        """It is read no more."""
