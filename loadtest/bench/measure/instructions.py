"""The processor's instructions of an exchange, of this version and of another one: what other load does not change."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.peers.edge import Edge, OtherVersion
from loadtest.bench.peers.peer import Peer
from loadtest.bench.stage import Stage
from loadtest.instructions import count_per_exchange


@dataclass(frozen=True)
class Instructions:
    """Instructions of an exchange, without system calls and without uvloop."""

    peer: str
    scenario: str
    count: int


WORKERS = (1, 4, 16, 64)
WORKERS_SCENARIOS = ("small", "429")


def run_workers(stage: Stage) -> tuple[dict[str, dict[int, int]], dict[str, str]]:
    """Count the instructions of an exchange by scenario and number of workers; by name why there are none."""
    python = str(stage.options.python)
    try:
        return {
            scenario: {workers: count_per_exchange(python, scenario, workers=workers) for workers in WORKERS}
            for scenario in WORKERS_SCENARIOS
        }, {}
    except FileNotFoundError:
        return {}, {"workers": "not here: install valgrind"}
    except subprocess.CalledProcessError as error:
        return {}, {"workers": str(error.stderr).strip().rpartition("\n")[2]}


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Instructions], dict[str, str]]:
    """Count them for each version of edgeproxy and each scenario; by name why a version has none."""
    counts: list[Instructions] = []
    failures: dict[str, str] = {}
    for peer in peers:
        if not isinstance(peer, Edge):
            continue
        say(f"instructions: {peer.name}")
        sources: Path | None = peer.folder if isinstance(peer, OtherVersion) else None
        try:
            for scenario in stage.options.scenarios:
                count = count_per_exchange(str(stage.options.python), scenario, sources)
                counts.append(Instructions(peer.name, scenario, count))
        except FileNotFoundError:
            failures[f"instructions of {peer.name}"] = "not here: install valgrind"
        except subprocess.CalledProcessError as error:
            failures[f"instructions of {peer.name}"] = str(error.stderr).strip().rpartition("\n")[2]
    return counts, failures
