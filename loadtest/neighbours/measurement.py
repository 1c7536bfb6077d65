"""One row: a peer is started, measured idle, measured beside its neighbours, and asked once more."""

import sys
import time
from functools import partial
from pathlib import Path

from loadtest.bench import ports
from loadtest.bench.ask import asking
from loadtest.bench.child import Child
from loadtest.neighbours import peers
from loadtest.neighbours.attacker import NICER, Attackers, Target
from loadtest.neighbours.memory import Watch
from loadtest.neighbours.neighbour import Neighbour
from loadtest.neighbours.options import Options
from loadtest.neighbours.polite import Door, Polite, first_request
from loadtest.neighbours.service import HOST
from loadtest.neighbours.verdict import Row, figures

_IDLE_SECONDS = 2.0
_WARM_UP_SECONDS = 1.0
"""Of the flood before the client begins to measure."""
_AFTER_SECONDS = 30.0


def measure(name: str, kind: Neighbour, options: Options, folder: Path) -> Row:
    """Measure one peer beside one kind; everything of it is in `folder`, which must not exist yet."""
    folder.mkdir(parents=True)
    core, other = options.cores
    good, bad, h2c, unused = ports.free(4)
    command = [sys.executable, "-m", "loadtest.neighbours.service"]
    services = [
        Child([*command, str(good), str(unused)], core=other, log=folder / "good"),
        Child(["nice", "-n", str(NICER), *command, str(bad), str(h2c)], core=other, log=folder / "bad"),
    ]
    try:
        for port, child in zip((good, bad), services, strict=True):
            child.wait_until(partial(_listens, port), 20.0, "listened")
        setting = peers.Setting(
            folder / name,
            core,
            other,
            peers.Services(good, bad, h2c),
            options.python,
            options.workers,
            kind.settings,
        )
        running = peers.start(name, setting)
        try:
            return _beside(running, kind, options)
        finally:
            running.stop()
    finally:
        for child in services:
            child.stop()


def _listens(port: int) -> bool:
    try:
        with asking(port) as asker:
            return asker.get("/ok").status == 200
    except OSError:
        return False


def _beside(running: peers.Running, kind: Neighbour, options: Options) -> Row:
    other = options.cores[1]
    door = Door((HOST, running.doors[kind.polite_door]), kind.polite_path)
    idle = Polite(door, _IDLE_SECONDS, options.rate, other).result()
    workers = set(running.pids())
    targets = [Target((HOST, running.doors[kind.door]))] * options.connections
    watch = Watch(running.child.pid)
    attackers = Attackers(kind, targets, options.seconds + _WARM_UP_SECONDS + _AFTER_SECONDS, other)
    try:
        time.sleep(_WARM_UP_SECONDS)
        beside = Polite(door, options.seconds, options.rate, other).result()
    finally:
        attackers.stop()
    after = first_request(door)
    return Row(
        kind.name,
        running.name,
        figures(idle.waits),
        figures(beside.waits),
        tuple(idle.errors + beside.errors),
        watch.growth(),
        not workers <= set(running.pids()),
        None if after is None else after * 1000,
    )
