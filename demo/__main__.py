"""Start httpbin, an edge in front of it, a collector and a Stripe sandbox, show what to try, and end them on Ctrl-C."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.process import Process, died
from demo.tour import Stop, stops

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
LOGS = ROOT / "var" / "demo"
START = 60.0
"""Seconds in which the edge must be ready."""
AGAIN = 0.5
"""Seconds between two looks at what takes a while."""
DRAIN = 35.0
"""Seconds that a process gets to end by itself: more than config/edge.yaml gives open requests."""

EVENTS = [
    {"source": "demo", "customer": "demo-pro", "id": f"{meter}-{value}", "meter": meter, "value": value}
    for meter, value in (("llm_tokens", 4_120), ("llm_tokens", 955), ("lm_tokens", 7))
]
"""Usage that a service reports, for pages to show: the last one is rejected, and waits to be mended in the console."""


class Unserved(Exception):
    """The demonstration cannot be served; the text says why."""


def free_socket(wanted: str) -> socket.socket:
    """A socket bound to `wanted` (`host:port`), or to the next port after it that is free."""
    host, _, port = wanted.rpartition(":")
    for candidate in range(int(port), min(int(port) + 100, 65536)):
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            bound.listen(1024)
        except OSError:
            bound.close()
        else:
            return bound
    raise Unserved(f"no port is free at {wanted} or in the hundred after it")


def name_of(bound: socket.socket) -> str:
    """Its address, as configuration and URLs have it."""
    host, port = bound.getsockname()
    return f"{host}:{port}"


def free_addresses(*wanted: str) -> list[str]:
    """For each of these a free address, all different, at or after it."""
    held = []
    for address in wanted:
        held.append(free_socket(address))
    names = [name_of(bound) for bound in held]
    for bound in held:
        bound.close()
    return names


def start_httpbin() -> tuple[Process, str]:
    """httpbin under gunicorn, on port 9001 or the next free one; the process and its URL."""
    with free_socket("127.0.0.1:9001") as listening:
        server: list[str | Path] = [BIN / "python", "-m", "gunicorn", "--bind", f"fd://{listening.fileno()}"]
        shape = ["--worker-class", "gthread", "--threads", "16", "--keep-alive", "75", "--no-control-socket"]
        command = [*server, *shape, "httpbin:app"]
        process = Process("httpbin", command, environ=os.environ, log=LOGS / "httpbin.log", keep=[listening.fileno()])
        return process, f"http://{name_of(listening)}"


def start_collector(**settings: str) -> tuple[Process, str]:
    """A collector, as config/collector.yaml says; the process and its URL."""
    (listen,) = free_addresses(os.environ.get("COLLECTOR_LISTEN", "127.0.0.1:9100"))
    environ = {**os.environ, **settings, "COLLECTOR_LISTEN": listen}
    command: list[str | Path] = [BIN / "edgeproxy", "collector", "-c", "config/collector.yaml"]
    return Process("the collector", command, environ=environ, log=LOGS / "collector.log"), f"http://{listen}"


def edge_addresses() -> list[str]:
    """Where an edge listens, and its admin listener."""
    wanted = {"EDGE_LISTEN": "127.0.0.1:8080", "EDGE_ADMIN": "127.0.0.1:9090"}
    return free_addresses(*(os.environ.get(name, usual) for name, usual in wanted.items()))


def start_edge(api: str, collector: str, listen: str, admin: str, **settings: str) -> tuple[Process, str, str]:
    """An edge in front of `api`, as config/edge.yaml says; the process, its URL and its admin listener's."""
    ours = {"EDGE_LISTEN": listen, "EDGE_ADMIN": admin, "API_URL": api, "COLLECTOR_URL": collector}
    command: list[str | Path] = [BIN / "edgeproxy", "edge", "-c", "config/edge.yaml"]
    return (
        Process("the edge", command, environ={**os.environ, **settings, **ours}, log=LOGS / "edge.log"),
        f"http://{listen}",
        f"http://{admin}",
    )


def await_ready(url: str, processes: Sequence[Process]) -> None:
    """Return once `url` answers 200; raises Unserved when a process dies first, or it takes too long."""
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        try:
            with directly.open(url, timeout=1):
                return
        except OSError:  # refused, not yet 200, or silent
            if dead := died(processes, 0.05):
                raise Unserved(dead.obituary()) from None
    raise Unserved(f"{url} was not ready within {START:.0f} s")


def start_sandbox(folder: str) -> tuple[Process, str]:
    """A Stripe to pay at, without money; the process and its URL."""
    (listen,) = free_addresses("127.0.0.1:12111")
    options = ["--listen", listen, "--state", f"{folder}/stripe.db", "--rates", "off"]
    command: list[str | Path] = [BIN / "edgeproxy", "stripe-sandbox", *options]
    return Process("the Stripe sandbox", command, environ=os.environ, log=LOGS / "stripe.log"), f"http://{listen}"


def create_signing_key(folder: Path) -> dict[str, str]:
    """A key that signs the directory, in `folder` unless it is there; what the collector and the edge are told of it.
    Raises Unserved."""
    file, public = folder / "directory.key", folder / "directory.pub"
    if not public.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [BIN / "edgeproxy", "directory", "keygen", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unserved(f"no key could be made for the directory: {done.stderr.strip()}")
        public.write_text(done.stdout)
    return {"DIRECTORY_KEY": str(file), "DIRECTORY_TRUST": public.read_text().strip()}


def bring_customers(**settings: str) -> None:
    """Have the collector's database know the customers of the files: what is sold is sold to those. Raises Unserved."""
    command: list[str | Path] = [BIN / "edgeproxy", "import", "-c", "config/demo.yaml"]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unserved(f"the customers could not be brought into the database: {done.stderr.strip()}")


def show(edge: str, admin: str, collector: str, stripe: str, api: str) -> None:
    """Print where everything is and the lines to try."""
    print(f"\nServing {edge} in front of httpbin at {api}; admin at {admin}, the collector at {collector},")
    print(f"a Stripe sandbox at {stripe}.")
    print("To try, in another terminal:\n")
    for stop in stops(edge, admin, collector, stripe):
        print(f"# {stop.shows}\n{stop.line}\n")
    print(f"Their logs are in {LOGS}. Ctrl-C ends it all.", flush=True)


def show_pages(edge: str, collector: str, **settings: str) -> None:
    """Print links to the pages, with something on them."""
    environ = {**os.environ, **settings, "COLLECTOR_LISTEN": collector.removeprefix("http://")}

    def edgeproxy(*arguments: str) -> str:
        command: list[str | Path] = [BIN / "edgeproxy", *arguments, "-c", "config/collector.yaml"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else f"not to be had: {done.stderr.strip()}"

    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(20):
        directly.open(urllib.request.Request(f"{edge}/get", headers={"X-API-Key": "ek_demo_pro"}), timeout=10).close()
    fields = {"Authorization": "Bearer demo-service-token", "Content-Type": "application/json"}
    events = json.dumps(EVENTS).encode()
    directly.open(urllib.request.Request(f"{collector}/v1/events", data=events, headers=fields), timeout=10).close()
    print("\nTo look at, in a browser (each of the first two links signs in once):\n")
    print(f"operators   {edgeproxy('sign-in')}")
    print(f"demo-pro    {edgeproxy('sign-in', '--customer', 'demo-pro')}")
    print(f"everybody   {collector}/status", flush=True)


def check(edge: str, admin: str, collector: str, stripe: str) -> bool:
    """Run each line of the tour and say whether it shows what it should; True if all do."""
    good = True
    for stop in stops(edge, admin, collector, stripe):
        deadline = time.monotonic() + stop.within
        while (fault := attempt(stop)) is not None and time.monotonic() < deadline:
            time.sleep(AGAIN)
        print(f"{'ok  ' if fault is None else 'FAIL'}  {stop.shows}")
        if fault is not None:
            good = False
            print(f"      {fault}")
    return good


def attempt(stop: Stop) -> str | None:
    """Run a line once; what is wrong with what it showed, and all of that, or None."""
    environ = {**os.environ, "no_proxy": "*"}
    shell = subprocess.run(stop.line, shell=True, check=False, capture_output=True, text=True, timeout=60, env=environ)
    try:
        fault = stop.fault(shell.stdout)
    except (ValueError, LookupError, TypeError) as unreadable:
        fault = f"unreadable: {unreadable}"
    return None if fault is None else f"{fault}\n      $ {stop.line}\n{shell.stdout}{shell.stderr}"


def serve(*, checking: bool) -> bool:
    """The whole demonstration; True if all went well. Ends whatever it started, however it is left."""
    started: list[Process] = []
    with ExitStack() as ends:  # in reverse order: the edge first, so that open requests can be answered

        def start(process: Process) -> None:
            started.append(process)
            ends.callback(process.end, DRAIN)

        settings = {}
        folder = str(LOGS)
        if checking:  # with counts of its own, so that no earlier request is in the window, or the ledger
            folder = ends.enter_context(TemporaryDirectory(prefix="edgeproxy-demo-"))
            settings["EDGE_STATE"] = f"{folder}/edge"
            settings["COLLECTOR_DATABASE"] = f"sqlite:///{folder}/ledger.db"
        print("starting httpbin, the edge, the collector and a Stripe sandbox", flush=True)
        httpbin, api = start_httpbin()
        start(httpbin)
        process, stripe = start_sandbox(folder)
        start(process)
        settings |= {"BILLING_MODE": "live", "STRIPE_BASE": stripe, "STRIPE_SECRET_KEY": "sk_test_demo"}
        settings |= {"HUB_URL": "memory://", **create_signing_key(Path(folder))}
        listen, admin = edge_addresses()
        settings["EDGE_STATUS_URL"] = f"http://{admin}/readyz"
        process, collector = start_collector(**settings)
        start(process)
        process, edge, admin = start_edge(api, collector, listen, admin, **settings)
        start(process)
        await_ready(f"{api}/status/200", started)
        await_ready(f"{stripe}/_sandbox/ready", started)
        await_ready(f"{collector}/readyz", started)
        bring_customers(**settings)
        await_ready(f"{admin}/readyz", started)
        if checking:
            return check(edge, admin, collector, stripe)
        show(edge, admin, collector, stripe, api)
        show_pages(edge, collector, **settings)
        if dead := died(started):
            raise Unserved(dead.obituary())
        return True


def main() -> int:
    """The exit code: 0 when all went well."""
    parser = argparse.ArgumentParser(prog="./scripts/run", description="Serve a demonstration until Ctrl-C.")
    parser.add_argument("--check", action="store_true", help="try the lines, say what they showed, and end")
    arguments = parser.parse_args()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    os.chdir(ROOT)
    try:
        return 0 if serve(checking=arguments.check) else 1
    except Unserved as why:
        print(f"demo: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nended", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())
