"""All that a run found out, and the JSON file that keeps it."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtest.bench.machine import Interpreter, Machine
from loadtest.bench.measure.flood import FloodCost
from loadtest.bench.measure.http2 import Http2Cost
from loadtest.bench.measure.instructions import Instructions
from loadtest.bench.measure.latency import Latency
from loadtest.bench.measure.memory import CrowdMemory, Memory
from loadtest.bench.measure.micro import Decision
from loadtest.bench.measure.policies import Policy
from loadtest.bench.measure.slice import Slice
from loadtest.bench.measure.tls import Tls
from loadtest.bench.options import Options
from loadtest.bench.peers import REFERENCE
from loadtest.bench.report.summary import costs

_FOLDER = Path(__file__).parents[3] / "bench-results"


@dataclass
class Results:
    """`left_out` says by name why something was not measured."""

    machine: Machine
    python: Interpreter
    options: Options
    began: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    crowd_memory: list[CrowdMemory] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    tls: list[Tls] = field(default_factory=list)
    http2: list[Http2Cost] = field(default_factory=list)
    floods: list[FloodCost] = field(default_factory=list)
    flood_instructions: dict[str, int] = field(default_factory=dict)
    instructions: list[Instructions] = field(default_factory=list)

    workers: dict[str, dict[int, int]] = field(default_factory=dict)
    """The instructions of an exchange by scenario and number of workers."""

    def save(self) -> Path:
        """Write the JSON file and return its path."""
        path = self.options.json or _FOLDER / f"{self.began.replace(':', '')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {**asdict(self), "costs": [asdict(cost) for cost in costs(self.slices, REFERENCE)]}
        path.write_text(json.dumps(whole, indent=1, default=str) + "\n")
        return path
