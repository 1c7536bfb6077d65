"""Where a run takes place: its folder, the two cores, the upstream; and how a peer gets onto it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from loadtest.bench.measure.crowd import Crowd
from loadtest.bench.options import Options
from loadtest.bench.peers.peer import Peer, Place, Running
from loadtest.bench.upstream.fixed import Upstream


class Stage:
    """Lives as long as the run. Every peer that it starts has a folder of its own."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self._started = 0
        self.upstream = Upstream(folder / "upstream", options.load_core)

    def place(
        self,
        peer: Peer,
        upstreams: tuple[int, ...] | None = None,
        certificate: tuple[Path, Path] | None = None,
        *,
        http2: bool = False,
        crowd: Crowd | None = None,
    ) -> Place:
        """A place for one start of `peer`, before the measured upstream unless others are given."""
        self._started += 1
        return Place(
            folder=self.folder / f"{self._started:03d}-{peer.name}",
            core=self.options.proxy_core,
            upstreams=upstreams or self.upstream.ports,
            python=self.options.python,
            certificate=certificate,
            http2=http2,
            crowd=crowd,
        )

    @contextmanager
    def serving(
        self,
        peer: Peer,
        upstreams: tuple[int, ...] | None = None,
        certificate: tuple[Path, Path] | None = None,
        *,
        http2: bool = False,
        crowd: Crowd | None = None,
    ) -> Iterator[Running]:
        """`peer` started anew; stopped at the end. Raises RuntimeError when it does not start."""
        running = peer.start(self.place(peer, upstreams, certificate, http2=http2, crowd=crowd))
        try:
            yield running
        finally:
            running.stop()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.upstream.stop()
