"""The contents of an edge's tables, as any process may read them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import file_name
from edgeproxy.edge.limits.route_limits import concurrency_rule
from loadtest.testbed.edge import Edge


@contextmanager
def people(edge: Edge) -> Iterator[LimitTable]:
    """The present table of people's limits."""
    state = Path(edge.settings["state"])
    with closing(Control.open(state / "control")) as control:
        path = state / file_name("customers", control.generation("customers"))
        with closing(TableFile.open(path, kind="customers", instance=control.instance)) as file:
            yield LimitTable(file)


def in_use(edge: Edge, customer: str) -> int:
    """Requests of this customer under way, as far as the table knows."""
    with people(edge) as table:
        row = table.peek(table.make_key(concurrency_rule(1, "customer").key(customer.encode())))
        assert row is not None
        return table.in_use(row)


def shown(edge: Edge, customer: str) -> int:
    """The same by the admin listener."""
    (used,) = [policy["used"] for policy in edge.limits(customer) if policy["name"] == "concurrency"]
    return int(used)
