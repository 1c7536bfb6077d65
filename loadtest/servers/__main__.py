"""Load real application servers behind the edge: GET and POST, with pauses at their keep-alive time-outs.

    python -m loadtest.servers [NAME …] [--requests 20000] [--behind edge|nginx|direct] [--python FILE] [--modules DIR]

Exit code 1: a request did not get the server's answer. 2: a server is not on this machine; the others were asked.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loadtest.bench.child import Child
from loadtest.bench.ports import free
from loadtest.servers.load import Outcome, rounds
from loadtest.servers.server import SERVERS, Means, Server
from loadtest.suites.stand import START_SECONDS, WAYS, Slot, accepts


def main() -> int:
    options = asked()
    failed = absent = False
    for name in options.names or SERVERS:
        with tempfile.TemporaryDirectory(prefix="servers-") as folder:
            means = Means(options.python, options.modules, Path(folder))
            began = time.monotonic()
            try:
                outcome = tried(SERVERS[name], means, options)
            except (FileNotFoundError, RuntimeError, subprocess.CalledProcessError) as missing:
                print(f"{name}: not here: {missing}", flush=True)
                absent = True
                continue
        failed = failed or bool(outcome.faults)
        print(f"{name} ({options.behind}): {outcome} in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 2 if absent else 0


def tried(server: Server, means: Means, options: argparse.Namespace) -> Outcome:
    """Start a server and what stands before it, and ask."""
    public, hidden = free(2)
    if options.behind == "direct":
        public = hidden
    child = Child(server.command(means, hidden), core=0, log=means.folder / "server")
    try:
        child.wait_until(lambda: accepts(hidden), START_SECONDS, "listens")
        with WAYS[options.behind](means.folder / "stand", [Slot(public, hidden)]):
            load = rounds(
                public,
                server.keeps,
                options.requests,
                clients=options.clients or server.clients,
                each=options.each,
                seed=options.seed,
            )
            return asyncio.run(load)
    finally:
        child.stop()


def asked(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.servers")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SERVERS))
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, help="at once, instead of what the server takes")
    parser.add_argument("--each", type=int, default=20, help="requests of a client in a round")
    parser.add_argument("--behind", choices=WAYS, default="edge")
    parser.add_argument("--python", default=sys.executable, help="one with aiohttp, uvicorn, gunicorn and Django")
    parser.add_argument("--modules", default="", help="a folder node_modules with Express")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(SERVERS):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(SERVERS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
