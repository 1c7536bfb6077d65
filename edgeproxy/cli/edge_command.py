"""The command `edgeproxy edge`, without the library of commands.

Each process of an edge would keep that library as long as it serves.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def parse(words: Sequence[str]) -> tuple[Path, bool] | None:
    """Parse `-c FILE` and `--watch` into arguments of `serve`. None for all others, which the library handles."""
    match [word for word in words if word != "--watch"]:
        case ["-c" | "--config", file] if file.isprintable() and not file.startswith("-"):
            return Path(file), "--watch" in words
    return None


def serve(config: Path, watch: bool) -> int:
    """Serve the edge of a file until SIGTERM or SIGINT; return the exit code of the process."""
    from edgeproxy.edge.supervisor import environment

    # Until the supervisor handles it: no change of the file from here on is missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    template = None
    if environment.is_reexecuted():  # Before anything is read that workers may not have.
        from edgeproxy.edge.supervisor.worker_template import WorkerTemplate

        template = WorkerTemplate.create()
        environment.restore()
    from edgeproxy.config.edge.load import try_load_edge
    from edgeproxy.config.outgoing import use_outgoing

    loaded = try_load_edge(config, os.environ)
    if loaded.settings is None:
        from edgeproxy.cli.files import describe_other_kind

        why = describe_other_kind(config, "edge") or "\n".join(map(str, loaded.problems))
        print(why, file=sys.stderr)
        return 2
    use_outgoing(loaded.settings)
    from edgeproxy.edge.supervisor.main import run

    # This frame lasts as long as the edge, and must not hold the first configuration after a reload.
    held, watched = [loaded.settings], loaded.signs if watch else None
    del loaded
    return run(held.pop, config, watched=watched, template=template)
