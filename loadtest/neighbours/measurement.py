"""One row: a peer is started, measured idle, measured beside its neighbours, and asked once more."""

import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.neighbours import peers, turns
from loadtest.neighbours.attacker import Attackers, Target
from loadtest.neighbours.client import Client, Door, first_request, run_first
from loadtest.neighbours.events import EVENTS
from loadtest.neighbours.kinds.tls import context
from loadtest.neighbours.materials import Materials
from loadtest.neighbours.memory import Watch
from loadtest.neighbours.neighbour import Neighbour, Services, Site
from loadtest.neighbours.options import Options
from loadtest.neighbours.peers import haproxy
from loadtest.neighbours.peers.peer import HOST, HOST_6, Place, Running
from loadtest.neighbours.verdict import Row, figures
from loadtest.testbed.http_client import ask

_IDLE_SECONDS = 2.0
"""At most; as long as a flood if that is shorter."""
_WARM_UP_SECONDS = 1.0
"""Of the flood before the client begins to measure."""
_LONGER_SECONDS = 40.0
"""For which attackers go on at most beyond their time, should the measurement hang."""
_START_SECONDS = 40.0
_SESSION_NICER = 5
"""By how much the hostile service stands back."""
_TRIES = 3


@dataclass(frozen=True)
class Bench:
    """The options and means that all rows of a run share."""

    options: Options
    materials: Materials


def measure(name: str, kind: Neighbour, bench: Bench, folder: Path) -> Row:
    """Measure one peer beside one kind, in a new folder. Raises RuntimeError if it does not start."""
    for attempt in range(1, _TRIES):
        try:
            return _measure(name, kind, bench, folder / str(attempt))
        except RuntimeError as error:  # Another process may take a port before ours does.
            print(f"{kind.name} beside {name} is tried again: {error}", file=sys.stderr, flush=True)
    return _measure(name, kind, bench, folder / str(_TRIES))


def _measure(name: str, kind: Neighbour, bench: Bench, folder: Path) -> Row:
    folder.mkdir(parents=True)
    options = bench.options
    core, other = options.cores
    services = Services(*ports.free(6))
    with ExitStack() as stack:
        children = _services(services, other, folder)
        for child, port in zip(children, (services.good, services.bad), strict=True):
            stack.callback(child.stop)
            child.wait_until(partial(_answers, port), _START_SECONDS, "answered")
        run_first(children[0].pid)
        with suppress(OSError):
            # A child has a session of its own, and the kernel may share its time by session (sched(7), autogroup).
            Path(f"/proc/{child.pid}/autogroup").write_text(str(_SESSION_NICER))
        settings: dict[str, Any] = dict(kind.settings(Site(folder, services)))
        if options.through_trusted_proxy:
            settings["trusted_proxies"] = [f"{HOST}/32"]
        place = Place(
            folder, core, other, services, bench.materials, options.python, options.workers, settings, options.from_64
        )
        running = peers.start(name, place)
        stack.callback(running.stop)
        doors = dict(running.doors)
        if options.through_trusted_proxy:
            front, front_doors = haproxy.start_in_front(folder / "front", other, running.doors["http2"])
            stack.callback(front.stop)
            front.wait_until(partial(_answers, front_doors["plain"]), _START_SECONDS, "relayed")
            doors |= front_doors
        return _beside(running, doors, kind, bench)


def _services(services: Services, core: int, folder: Path) -> list[Child]:
    command = [sys.executable, "-m", "loadtest.neighbours.service"]
    own = [services.good, *ports.free(3)]
    hostile = [services.bad, services.h2c, services.interim, services.silent]
    return [
        Child([*command, *map(str, ports)], core=core, log=folder / name)
        for name, ports in (("good", own), ("bad", hostile))
    ]


def _answers(port: int) -> bool:
    try:
        return ask(port, "/ok").status == 200
    except OSError:
        return False


def _targets(kind: Neighbour, doors: dict[str, int], bench: Bench) -> list[Target]:
    tls: ssl.SSLContext | None = None
    if kind.door in ("tls", "mutual"):
        tls = context()
        if kind.door == "mutual":
            tls.load_cert_chain(*bench.materials.client)
    port = doors[kind.door]
    if bench.options.from_64:
        return [Target((HOST_6, port), tls, f"fd00:64::{number + 1:x}") for number in range(bench.options.connections)]
    return [Target((HOST, port), tls)] * bench.options.connections


def _beside(running: Running, doors: dict[str, int], kind: Neighbour, bench: Bench) -> Row:
    options = bench.options
    other = options.cores[1]
    polite_tls = context() if kind.polite.door == "tls" else None
    door = Door((HOST, doors[kind.polite.door]), kind.polite, polite_tls)
    idle = Client(door, min(_IDLE_SECONDS, options.seconds), options.rate, other).result()
    workers = running.workers()
    admin = running.doors.get("admin")
    before = turns.fetch(admin) if admin else {}
    watch = Watch(running.child.pid)
    attackers = Attackers(kind, _targets(kind, doors, bench), options.seconds + _LONGER_SECONDS, other)
    try:
        threading.Event().wait(_WARM_UP_SECONDS)
        # A drain refuses new connections, so the client has asked everything before.
        seconds = max(0.5, options.seconds / 2 - 0.5) if options.during == "drain" else options.seconds
        client = Client(door, seconds, options.rate, other)
        failed = _happen(running, options) if options.during else ""
        beside = client.result()
    finally:
        connections = attackers.stop()
    after = None if options.during == "drain" else first_request(door)
    errors = idle.errors + beside.errors + ([failed] if failed else [])
    return Row(
        neighbour=kind.name,
        peer=running.name,
        idle=figures(idle.waits),
        beside=figures(beside.waits),
        errors=tuple(errors),
        connections=connections,
        growth=watch.growth(),
        killed=options.during not in ("upgrade", "drain") and not workers <= running.workers(),
        after=0.0 if options.during == "drain" else after and after * 1000,
        turn=turns.longest(before, turns.fetch(admin)) if admin else None,
    )


def _happen(running: Running, options: Options) -> str:
    """Let the event happen in the middle of the flood; returns what went wrong."""
    assert options.during is not None
    event: Callable[[Running], None] = EVENTS[options.during]
    threading.Event().wait(options.seconds / 2)
    try:
        event(running)
    except (OSError, RuntimeError) as error:
        return f"{options.during}: {error}"
    return ""
