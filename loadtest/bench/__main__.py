"""`python -m bench`: check the peers, measure them in turn, report. See `scripts/bench --help`."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from types import FrameType

from loadtest.bench import machine
from loadtest.bench.load import h2load, wrk
from loadtest.bench.measure import flood, http2, instructions, latency, memory, micro, policies, preflight, rounds, tls
from loadtest.bench.nginx import binary as nginx_binary
from loadtest.bench.options import Options, parse
from loadtest.bench.peers import HTTP2_PEERS, PEERS
from loadtest.bench.peers.edge import Edge, OtherVersion, OtherVersionError
from loadtest.bench.peers.peer import Peer
from loadtest.bench.report.results import Results
from loadtest.bench.report.text import text
from loadtest.bench.stage import Stage
from loadtest.bench.upstream.echo import Echo


def main(argv: Sequence[str]) -> int:
    """Return 0 if edgeproxy was measured and all answers were right, 1 if not, 2 if this machine cannot measure."""
    options = parse(argv)
    if lacking := _lacking(options):
        say(lacking)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        results = Results(machine.this(), machine.interpreter(options.python), options)
    except (OSError, ValueError, subprocess.SubprocessError):
        say(f"--python: {options.python} does not answer as a Python does")
        return 2
    if results.machine.load > 0.5:
        say(f"the load average is {results.machine.load}: something else is at work here, figures will be high")
    # The bench itself stays off the proxy's core.
    os.sched_setaffinity(0, {options.load_core})
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-") as folder, Stage(options, Path(folder)) as stage:
            _measure(stage, results)
    except OtherVersionError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted; what was measured until now is not reported")
        return 130
    path = results.save()
    print(text(results))
    print(f"\n{path}")
    expected = Edge.name in options.only
    measured = Edge.name in results.versions and Edge.name not in results.left_out
    return 1 if any(slice_.wrong for slice_ in results.slices) or (expected and not measured) else 0


def say(line: str) -> None:
    """Print the progress."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _lacking(options: Options) -> str | None:
    """Return why this machine cannot measure, or None."""
    packages = [name for name, path in (("nginx", nginx_binary()), ("wrk", wrk.binary())) if path is None]
    if packages:
        return f"the upstream and the load need {' and '.join(packages)}: apt-get install {' '.join(packages)}"
    if "http2" in options.parts and h2load.binary() is None:
        return "the load of HTTP/2 needs h2load: apt-get install nghttp2-client"
    cores = os.sched_getaffinity(0)
    if not {options.proxy_core, options.load_core} <= cores:
        return f"cores {options.proxy_core} and {options.load_core} are wanted, there are {sorted(cores)} (--cores)"
    return None


def _measure(stage: Stage, results: Results) -> None:
    parts = stage.options.parts
    chosen: list[Peer] = [peer for peer in PEERS if peer.name in stage.options.only]
    if stage.options.against is not None:
        chosen.append(OtherVersion(stage.options.against, stage.folder / "other-version"))
    peers = [peer for peer in chosen if _fit(stage, peer, results)]
    if "http2" in parts or "many-http2" in parts:
        others = [peer for peer in HTTP2_PEERS if peer.name in stage.options.only and peer not in chosen]
        speaking = [peer for peer in (*peers, *others) if peer in HTTP2_PEERS or peer not in PEERS]
        speaking = [peer for peer in speaking if peer in peers or _fit(stage, peer, results)]
        for part, measure in (("http2", http2.run), ("many-http2", http2.run_crowds)):
            if part in parts:
                costs, failures = measure(stage, speaking, say)
                results.http2 += costs
                results.left_out.update(failures)
    if "cpu" in parts:
        results.slices, failures = rounds.run(stage, peers, say)
        results.left_out.update(failures)
    if "many" in parts:
        slices, failures = rounds.run_crowds(stage, peers, say)
        results.slices += slices
        results.left_out.update(failures)
    if "flood" in parts:
        results.floods, failures = flood.run(stage, rounds.list_crowd_peers(peers), say)
        results.left_out.update(failures)
        if Edge.name in stage.options.only:
            results.flood_instructions, failures = flood.count_instructions(stage, say)
            results.left_out.update(failures)
    if "workers" in parts:
        say("instructions by number of workers")
        results.workers, failures = instructions.run_workers(stage)
        results.left_out.update(failures)
    if "instructions" in parts:
        results.instructions, failures = instructions.run(stage, peers, say)
        results.left_out.update(failures)
    if "latency" in parts:
        results.latencies, failures = latency.run(stage, peers, say)
        results.left_out.update(failures)
    if "memory" in parts:
        results.memory, failures = memory.run(stage, peers, say)
        results.left_out.update(failures)
    if "many-memory" in parts:
        results.crowd_memory, failures = memory.run_crowds(stage, peers, say)
        results.left_out.update(failures)
    if "tls" in parts:
        results.tls, failures = tls.run(stage, peers, say)
        results.left_out.update(failures)
    if "micro" in parts and Edge.name in stage.options.only:
        say("limit decisions")
        try:
            results.decisions = micro.run(stage)
        except RuntimeError as error:
            results.left_out["limit decisions"] = str(error)
    if "policies" in parts and Edge.name in stage.options.only:
        say("kinds of policies")
        try:
            results.policies = policies.run(stage)
        except RuntimeError as error:
            results.left_out["policies"] = str(error)


def _fit(stage: Stage, peer: Peer, results: Results) -> bool:
    """Return whether `peer` is installed and does its job."""
    if package := peer.missing():
        results.left_out[peer.name] = f"not here: install {package}"
        return False
    say(f"checking {peer.name}")
    try:
        with stage.serving(peer) as running:
            preflight.check_relay(running)
        if peer.does_job:
            with Echo() as echo, stage.serving(peer, (echo.port,)) as running:
                preflight.check_job(running, echo)
        results.versions[peer.name] = peer.version(stage.place(peer))
    except (OSError, RuntimeError, HTTPException, preflight.Wrong) as error:
        results.left_out[peer.name] = f"does not do its job: {error}"
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
