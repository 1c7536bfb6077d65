"""Start a company that sells an API: edges in two regions, and all that belongs to them. Ctrl-C ends it."""

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from demo import hub, screen
from demo.check import check_pages, check_tour
from demo.data import Data, FolderInUseError
from demo.ports import NoFreePortError, Ports
from demo.process import measure_memory
from demo.services import REGIONS, ROOT, Services
from demo.shell import ShellError
from demo.stage import NotReadyError, Stage
from demo.tour import build_tour
from demo.web import UnexpectedResponseError

MEMORY_MAX = 1536 << 20
"""Bytes of memory that all of it may have."""


def serve(options: argparse.Namespace) -> bool:
    """Serve until a signal, or run the tour; return whether all went well. Whatever it started ends with it."""
    begun = time.monotonic()
    with_hub = not options.small
    if with_hub and (why := hub.explain_missing()):
        print(f"demo: {why}. Until then: one edge without a hub, as with --small.", file=sys.stderr)
        with_hub = False
    with ExitStack() as ends:
        folder = options.data
        if options.check:  # A company of its own, so that nothing has been used before.
            folder = Path(ends.enter_context(TemporaryDirectory(prefix="edgeproxy demo "))) / "data"
        data = Data(folder)
        ends.callback(data.close)
        ports = Ports()
        ends.callback(ports.close)
        services = Services(data, ports, REGIONS if with_hub else REGIONS[:1], with_hub=with_hub)
        for taken in ports.taken:
            print(f"demo: port {taken.usual} is taken: {taken.service} uses {taken.instead}", file=sys.stderr)
        print(f"Starting, with data in {data.folder}", flush=True)
        stage = Stage(services, data, ends)
        stage.start()
        environment = screen.write_environment(services, stage.company, data, stage.admin_token)
        tour = build_tour(services.regions, with_prometheus=services.prometheus is not None)
        rows = screen.build_rows(services, data)
        screen.print_tour(tour, environment, data)
        screen.print_rows(rows)
        memory = measure_memory()
        screen.print_figures(time.monotonic() - begun, memory)
        if not options.check:
            stage.supervise()
        good = check_pages(rows) and check_tour(tour, environment, data.folder)
        memory = max(memory, measure_memory())
        print(f"All of it has {memory >> 20} MiB of memory", flush=True)
        return good and memory < MEMORY_MAX


def main() -> int:
    """Run the command; return the exit code, 0 when all went well."""
    parser = argparse.ArgumentParser(
        prog="./scripts/run", description="Serve a company that sells an API, on this machine, until Ctrl-C."
    )
    parser.add_argument("--check", action="store_true", help="run the printed lines, judge what they show, and end")
    parser.add_argument("--small", action="store_true", help="one edge, and no Redis")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", default=ROOT / "var" / "demo", help="var/demo by default"
    )
    options = parser.parse_args()
    options.data = options.data.absolute()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    os.chdir(ROOT)
    try:
        return 0 if serve(options) else 1
    except (NotReadyError, NoFreePortError, FolderInUseError, ShellError, UnexpectedResponseError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())
