"""Edges, a collector and an upstream, with a relay between them, and what must hold of their counts."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from loadtest.testbed.collector import Collector, checked
from loadtest.testbed.faulty_edge import Counted
from loadtest.testbed.relay import CALM
from loadtest.testbed.upstream import Upstream


class Site:
    """All of it, from `with` to its end. The upstream is the edges' together."""

    def __init__(self, folder: Path, seed: int, *, edges: int = 1, database: str | None = None) -> None:
        self.folder = folder
        self._seed = seed
        self._ends = ExitStack()
        self.upstream = Upstream(folder / "upstream")
        self._ends.callback(self.upstream.stop)
        self.collector = Collector(folder / "collector", database or f"sqlite:///{folder}/ledger.db")
        self._ends.enter_context(closing(self.collector))
        self.edges = [self.add(f"region-{number}") for number in range(edges)]

    def add(self, name: str, **settings: Any) -> Counted:
        """An edge more, which is not started."""
        edge = Counted(self.folder / name, self.upstream.port, self.collector, name, self._seed, **settings)
        return self._ends.enter_context(closing(edge))

    @property
    def edge(self) -> Counted:
        """The first one."""
        return self.edges[0]

    def __enter__(self) -> Self:
        try:
            self.collector.start()
            for edge in self.edges:
                edge.start()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def given(self) -> int:
        """Billable answers of the upstream."""
        return sum(self.upstream.seen()["billable"].values())

    def assert_exact(self, *, killed: bool) -> str:
        """Restore the network, and require that everything arrives once.

        `killed`: a process was killed, so clients may have lost answers without a record.
        """
        for edge in self.edges:
            edge.relay.fates = CALM
        counted = {edge: edge.arrived() for edge in self.edges}
        for edge, sums in counted.items():
            edge.relay.late()
            assert edge.sealed() == sums
        ledger = sum(row["value"] for row in self.collector.usage(by="meter")["rows"])
        assert ledger == sum(sum(sums.values()) for sums in counted.values())
        answered, given = sum(edge.answered() for edge in self.edges), self.given()
        lost = sum(edge.lost() for edge in self.edges)
        line = f"answered {answered} <= ledger {ledger} <= given {given}; lost {lost}"
        print(line)
        assert answered <= ledger <= given, line
        assert given - answered <= lost, line
        assert killed or answered == ledger == given, line
        code, output = checked(self.collector)
        assert code == 0, output
        return line
