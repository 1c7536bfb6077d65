"""An edge where all takes longer: `python -m loadtest.testbed.slow_edge TIMES MODULE ARGUMENT…`.

MODULE is what it is by `python -m MODULE ARGUMENT…`, but for one thing: its workers serve without a supervisor TIMES as
long, so that another one has the time to start that it has on a real machine.
"""

import runpy
import sys

from loadtest.testbed.fork_server import EDGE_PYTHON
from loadtest.testbed.waiting import SLOWNESS


def edge_command(module: str, *arguments: str) -> tuple[str, ...]:
    """What starts an edge: this module where deadlines are longer than tests say, and else the one that is named."""
    slow = () if SLOWNESS == 1 else (__name__, f"{SLOWNESS:g}")
    return (EDGE_PYTHON, "-m", *slow, module, *arguments)


def main() -> None:
    """Become the module."""
    # EDGEPROXY_SLOWNESS is not there any more in an edge that has executed itself.
    del sys.argv[0]
    times = float(sys.argv.pop(0))
    if sys.argv[:2] == ["edgeproxy", "edge"]:
        from edgeproxy.edge.supervisor.environment import reexecute

        reexecute()  # It would do so anyway, and import all of this twice.
    from edgeproxy.edge.supervisor import supervisor

    supervisor.ORPHAN_SECONDS *= times
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
