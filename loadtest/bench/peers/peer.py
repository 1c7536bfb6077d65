"""A proxy that is measured: what it needs, how it is started, what it says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from loadtest.bench.ask import asking, bearer
from loadtest.bench.child import Child, tree
from loadtest.bench.people import ACME

_START_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """Where a peer runs: a folder of its own, its core, its upstream's ports, the Python for those that need one.

    With a `certificate` (its file, and that of its key) a peer that can serves TLS beside, on a port of its own. With
    `http2` it speaks HTTP/2 too.
    """

    folder: Path
    core: int
    upstreams: tuple[int, ...]
    python: Path
    certificate: tuple[Path, Path] | None = None
    http2: bool = False


@dataclass(frozen=True)
class Running:
    """A peer that serves on `port`.

    `counted` tells how many requests of the customer ACME it has counted, None where it does not count.
    `control` names processes that are not on the request path; their CPU is reported apart.
    """

    child: Child
    port: int
    counted: Callable[[], int] | None = None
    control: frozenset[int] = frozenset()
    secure_port: int = 0
    """Where it serves TLS, if it does."""
    http2_port: int = 0
    """Where it speaks HTTP/2 without TLS, if it does."""
    beside: tuple[Child, ...] = ()
    """What it needs and is not measured: ends with it."""

    def workers(self) -> list[int]:
        """The processes that serve, and whatever else of it is not `control`."""
        return [pid for pid in tree(self.child.pid) if pid not in self.control]

    def stop(self) -> None:
        for child in (self.child, *self.beside):
            child.stop()


class Peer(ABC):
    """One kind of proxy. `does_job`: it identifies, limits, stamps and counts, and is checked for that."""

    name: str
    does_job: bool = True

    def missing(self) -> str | None:
        """What must be installed before it can be measured, or None."""
        return None

    @abstractmethod
    def version(self, place: Place) -> str: ...

    @abstractmethod
    def launch(self, place: Place) -> Running:
        """Start the processes; they need not serve yet."""

    def start(self, place: Place) -> Running:
        """Start it and wait until it relays; raises RuntimeError with its last words where it does not."""
        place.folder.mkdir(parents=True, exist_ok=True)
        running = self.launch(place)
        try:
            running.child.wait_until(lambda: _relays(running.port), _START_SECONDS, "relayed a request")
        except BaseException:
            running.stop()
            raise
        return running


def _relays(port: int) -> bool:
    try:
        with asking(port) as asker:
            return asker.get("/v1/small", [bearer(ACME.key)]).status == 200
    except (OSError, HTTPException):
        return False
