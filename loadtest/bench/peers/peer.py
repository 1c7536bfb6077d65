"""A proxy that is measured: its requirements, its start, and the figures that it reports."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from loadtest.bench.ask import asking, bearer
from loadtest.bench.child import Child, tree
from loadtest.bench.measure.crowd import Crowd
from loadtest.bench.people import ACME, CUSTOMERS, ROUTES, Customer

_START_SECONDS = 60.0
"""As long as the slowest peer may read 100,000 customers on a busy machine."""


@dataclass(frozen=True)
class Place:
    """The place of a peer: its folder, core, upstream ports, and the Python for peers that need one.

    With a `certificate` (files of certificate and key) a capable peer also serves TLS, on its own port. With `http2`
    it also speaks HTTP/2.
    """

    folder: Path
    core: int
    upstreams: tuple[int, ...]
    python: Path
    certificate: tuple[Path, Path] | None = None
    http2: bool = False
    crowd: Crowd | None = None
    """Customers and routes in addition to the ones of all peers."""

    @property
    def customers(self) -> tuple[Customer, ...]:
        return CUSTOMERS if self.crowd is None else (*CUSTOMERS, *self.crowd.list_customers())

    @property
    def routes(self) -> tuple[str, ...]:
        return ROUTES if self.crowd is None else (*ROUTES, *self.crowd.list_route_names())


@dataclass(frozen=True)
class Running:
    """A peer that serves on `port`.

    `counted` returns how many requests of the customer ACME it has counted; None if it does not count. `control`
    holds processes outside the request path; their CPU is reported separately.
    """

    child: Child
    port: int
    counted: Callable[[], int] | None = None
    control: frozenset[int] = frozenset()
    secure_port: int = 0
    """The TLS port, if it has one."""
    http2_port: int = 0
    """The port for HTTP/2 without TLS, if it has one."""
    beside: tuple[Child, ...] = ()
    """Processes that it needs and that are not measured. They end with it."""

    def workers(self) -> list[int]:
        """Return the serving processes: all of its processes except `control`."""
        return [pid for pid in tree(self.child.pid) if pid not in self.control]

    def stop(self) -> None:
        for child in (self.child, *self.beside):
            child.stop()


class Peer(ABC):
    """One kind of proxy. With `does_job` it identifies, limits, stamps and counts, and the bench checks that."""

    name: str
    does_job: bool = True

    def missing(self) -> str | None:
        """Return a missing dependency that must be installed before the measurement, or None."""
        return None

    @abstractmethod
    def version(self, place: Place) -> str: ...

    @abstractmethod
    def launch(self, place: Place) -> Running:
        """Start the processes; they need not serve yet."""

    def start(self, place: Place) -> Running:
        """Start the peer and wait until it relays. Raises RuntimeError with its last output if it does not."""
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
