"""An overload that sheds as a test says."""

from tests.support.transcript import Edge


class Shedding:
    """Replaces a worker's overload control: it sheds requests below a given priority."""

    def __init__(self, edge: Edge, line: int) -> None:
        self.asked: list[int] = []
        self._line = line
        overload = edge.runtime.overload
        overload.stop()
        overload.shedding = True
        overload.should_shed = self.sheds

    def sheds(self, priority: int, address: bytes) -> bool:
        self.asked.append(priority)
        return priority < self._line
