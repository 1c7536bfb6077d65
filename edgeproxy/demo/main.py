"""Start a company that sells an API: edges in two regions, and all that belongs to them. Ctrl-C ends it."""

import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeproxy.config.environment import OWN_SECRETS
from edgeproxy.demo import hub, screen
from edgeproxy.demo.check import check_pages, check_tour
from edgeproxy.demo.data import Data, FolderInUseError
from edgeproxy.demo.ports import NoFreePortError, Ports
from edgeproxy.demo.process import measure_memory
from edgeproxy.demo.services import CHECKOUT, CONFIG, REGIONS, Services
from edgeproxy.demo.shell import ShellError
from edgeproxy.demo.stage import NotReadyError, Stage
from edgeproxy.demo.tour import build_tour
from edgeproxy.demo.web import UnexpectedResponseError

MEMORY_MAX = 1536 << 20
"""Bytes of memory that all of it may have."""


PACKAGES = ("sqlalchemy", "aiosmtpd", "gunicorn", "httpbin", "stripe_sandbox")
"""A package of each set that the processes import."""


def explain_missing(*, check: bool) -> str | None:
    """Return a sentence about the first missing requirement of a demonstration, or None if nothing is missing."""
    if not CONFIG.is_dir():
        return "this installation was made without config/: install a wheel, or use ./scripts/run of a checkout"
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        return f"{missing[0]} is not installed: pip install 'edgeproxy[collector,demo]' stripe_sandbox-….whl"
    for program in ("setpriv", *(("bash", "curl") if check else ())):
        if shutil.which(program) is None:
            return f"there is no {program} on this machine"
    return None


def serve(folder: Path, *, check: bool, small: bool) -> bool:
    """Serve until a signal, or run the tour; return whether all went well. Whatever it started ends with it."""
    begun = time.monotonic()
    with_hub = not small
    if with_hub and (why := hub.explain_missing()):
        print(f"demo: {why}. Until then: one edge without a hub, as with --small.", file=sys.stderr)
        with_hub = False
    with ExitStack() as ends:
        if check:  # A company of its own, so that nothing has been used before.
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
        with_prometheus, with_load = services.prometheus is not None, CHECKOUT is not None
        tour = build_tour(services.regions, with_prometheus=with_prometheus, with_load=with_load)
        rows = screen.build_rows(services, data)
        screen.print_tour(tour, environment, data)
        screen.print_rows(rows)
        memory = measure_memory()
        screen.print_figures(time.monotonic() - begun, memory)
        if not check:
            stage.supervise()
        good = check_pages(rows) and check_tour(tour, environment, data.folder)
        memory = max(memory, measure_memory())
        print(f"All of it has {memory >> 20} MiB of memory", flush=True)
        return good and memory < MEMORY_MAX


def run(folder: Path, *, check: bool, small: bool) -> int:
    """Serve with data in this folder, or run the tour with data of its own; return the exit code."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if why := explain_missing(check=check):
        print(f"demo: {why}", file=sys.stderr)
        return 2
    if CHECKOUT is None:
        print("demo: without a checkout there is no load test; all else is here", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    # Secrets of the operator's shell belong to another installation. No process of the demonstration may use them.
    for name in OWN_SECRETS:
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    try:
        return 0 if serve(folder.absolute(), check=check, small=small) else 1
    except (NotReadyError, NoFreePortError, FolderInUseError, ShellError, UnexpectedResponseError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended", flush=True)
        return 0
