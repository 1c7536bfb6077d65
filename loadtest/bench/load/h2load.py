"""h2load: the load generator that speaks HTTP/2, and HTTP/1.1 beside it, so that both are asked by the same client."""

import re
import shutil

from loadtest.bench.child import output
from loadtest.bench.load.wrk import Load
from loadtest.bench.scenario import Scenario

_TOOK = re.compile(r"^finished in ([\d.]+)(us|ms|s|m)", re.MULTILINE)
_REQUESTS = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
_TRAFFIC = re.compile(r"^traffic: \S+ \((\d+)\) total", re.MULTILINE)
_MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}


def binary() -> str | None:
    return shutil.which("h2load")


def run(
    scenario: Scenario, port: int, *, http2: bool, secure: bool, connections: int, streams: int, seconds: int, core: int
) -> Load:
    """Ask `port` as fast as it answers; `streams`: of each connection at a time. Raises RuntimeError when it fails."""
    path = binary()
    if path is None:
        raise RuntimeError("h2load is not installed")
    fields = dict(scenario.fields) | {"authorization": f"Bearer {scenario.customer.key}"}
    fields.pop("Connection", None)
    host = fields.pop("Host")
    argv = [path, "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}"]
    argv += [f"--header={name.lower()}: {value}" for name, value in fields.items()]
    argv.append(f"--header=:authority: {host}")
    if not http2:
        argv.append("--h1")
    argv.append(f"{'https' if secure else 'http'}://127.0.0.1:{port}{scenario.target}")
    return parse(output(core, argv, seconds=seconds + 20))


def parse(text: str) -> Load:
    """Parse what h2load reports. Raises RuntimeError where that is no whole report."""
    took, requests = _TOOK.search(text), _REQUESTS.search(text)
    statuses, traffic = _STATUSES.search(text), _TRAFFIC.search(text)
    if took is None or requests is None or statuses is None or traffic is None:
        raise RuntimeError(f"h2load gave no result: {text.strip()[-300:]}")
    succeeded, *failures = map(int, requests.groups())
    _, redirected, *refused = map(int, statuses.groups())
    return Load(
        requests=succeeded,
        microseconds=round(float(took[1]) * _MICROSECONDS[took[2]]),
        bytes=int(traffic[1]),
        refused=redirected + sum(refused),
        failed=sum(failures),
    )
