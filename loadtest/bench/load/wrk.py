"""wrk: the load generator that keeps a proxy busy. Its requests are Lua strings that we write for it."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.child import output
from loadtest.bench.measure.crowd import KEY, WARM_UP, Crowd
from loadtest.bench.nginx import fill
from loadtest.bench.scenario import CHANGES, Scenario

_DONE = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "bytes": %d, "refused": %d, "failed": %d}\\n',
        summary.requests, summary.duration, summary.bytes, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


FIRST_SECONDS = 120
"""Seconds within which all customers must have sent a request."""
TURN_CONNECTIONS = 8
"""Connections for one request of each customer: a new connection costs as much as several requests."""


@dataclass(frozen=True)
class Load:
    """The whole answers that wrk saw, in how long; bytes with their heads; how many had a status of 400 or above."""

    requests: int
    microseconds: int
    bytes: int
    refused: int
    failed: int


def binary() -> str | None:
    return shutil.which("wrk")


def version() -> str:
    path = binary()
    if path is None:
        return "wrk is not installed"
    result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return (result.stdout or result.stderr).splitlines()[0].split(" Copyright")[0]


def script(scenario: Scenario, seed: int, *, warms_up: bool = False) -> str:
    """The Lua of this scenario; what changes is drawn from `seed`, so that slices differ. `crowd_script` documents
    `warms_up`.
    """
    if scenario.crowd is not None:
        return crowd_script(scenario.crowd, seed, warms_up=warms_up)
    pieces = [json.dumps(piece) for piece in scenario.text().split(CHANGES)]
    if len(pieces) == 1:
        return f"local fixed = {pieces[0]}\nrequest = function() return fixed end\n{_DONE}"
    joined = " .. n .. ".join(pieces)
    return (
        f"math.randomseed({seed})\n"
        "request = function()\n"
        '    local n = string.format("%06x%06x", math.random(0, 16777215), math.random(0, 16777215))\n'
        f"    return {joined}\n"
        f"end\n{_DONE}"
    )


def crowd_script(crowd: Crowd, seed: int, *, warms_up: bool = False) -> str:
    """The Lua of requests of many customers. `warms_up`: the customers who send requests before the counted ones."""
    flags = {"ZIPF": crowd.is_zipf, "NEW": crowd.has_new_paths, "FIRST": crowd.is_in_turn}
    counted = crowd.customers - WARM_UP if crowd.is_in_turn else crowd.customers
    return fill(
        Path(__file__).with_name("crowd.lua").read_text() + _DONE,
        CUSTOMERS=WARM_UP if warms_up else counted,
        BEGIN=counted if warms_up else 0,
        ROUNDS=crowd.warm_up_rounds if warms_up else 1,
        ROUTES=crowd.routes,
        SEED=1 if crowd.is_in_turn else seed,  # The second requests of customers have the routes of the first ones.
        KEY=KEY,
        KIND=crowd.kind,
        **{name: str(value).lower() for name, value in flags.items()},
    )


def run(
    scenario: Scenario,
    port: int,
    *,
    seconds: int,
    connections: int,
    core: int,
    folder: Path,
    scheme: str = "http",
    warms_up: bool = False,
) -> Load:
    """Ask `port` as fast as it answers. Raises RuntimeError when wrk fails. `crowd_script` documents `warms_up`."""
    path = binary()
    if path is None:
        raise RuntimeError("wrk is not installed")
    if scenario.crowd is not None and scenario.crowd.is_in_turn:
        seconds, connections = FIRST_SECONDS, min(connections, TURN_CONNECTIONS)
    lua = folder / f"{scenario.name}.lua"
    lua.write_text(script(scenario, time.time_ns() // 1000, warms_up=warms_up))
    argv = [path, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(lua), f"{scheme}://127.0.0.1:{port}/"]
    messages = output(core, argv, seconds=seconds + 20)
    for line in messages.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")))
    raise RuntimeError(f"wrk gave no result: {messages.strip()[-300:]}")
