"""Clients of models' APIs behind the edge, and directly: `python -m loadtest.model_clients --python PYTHON`.

PYTHON is an interpreter with openai, anthropic and litellm: docs/start/compatibility.md says how to get it. The
stand-in for the APIs is loadtest/testbed/models.py; the edge is config/ai.yaml with a route for Anthropic, and with a
limit in tokens that reads each request. Exit code 1: an answer differs.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.models import Models
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT

SESSION = Path(__file__).parent / "session.py"
SECONDS_MAX = 120.0
LIMIT = {"rate": "100000/min", "of": "all", "reserve": "request"}


def build_settings(port: int) -> dict[str, Any]:
    """The edge's settings: `port` is that of the stand-in."""
    shipped = yaml.safe_load((ROOT / "config/ai.yaml").read_text())
    (route,) = shipped["routes"]
    route["rewrite"]["request"]["set"]["Authorization"] = "Bearer none"
    anthropic = {"name": "anthropic", "path": "/anthropic/*", "upstream": "models", "response_usage": "anthropic"}
    customers = people(acme="free")
    return {
        **customers,
        "upstreams": {"models": {**shipped["upstreams"]["models"], "endpoints": [f"http://{HOST}:{port}"]}},
        "routes": [route, {**anthropic, "rewrite": {"strip": "/anthropic"}}],
        "meters": {**shipped["meters"], "all": {"count": "total_tokens"}},
        "tiers": {**customers["tiers"], "free": {"limits": [LIMIT]}},
    }


async def run_session(python: str, openai_url: str, anthropic_url: str) -> dict[str, Any]:
    """What the clients of one session got, by client."""
    command = (python, str(SESSION), openai_url, anthropic_url, key_of("acme"))
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # It would ask the internet.
    session = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    async with asyncio.timeout(SECONDS_MAX):
        output, _ = await session.communicate()
    assert session.returncode == 0, "the clients' output is above"
    results: dict[str, Any] = json.loads(output)
    return results


async def compare(python: str, folder: Path) -> int:
    """Ask directly and behind the edge; returns how many clients got something else."""
    with closing(Ports(1)) as ports:
        (port,) = ports.numbers
        with closing(Edge(folder / "edge", port, **build_settings(port))) as edge:
            await asyncio.to_thread(edge.start)
            async with Models().open(port):
                here, there = f"http://{HOST}:{port}", f"http://{HOST}:{edge.port}"
                direct = await run_session(python, f"{here}/v1", here)
                behind = await run_session(python, f"{there}/v1", f"{there}/anthropic")
    print(f"versions: {direct['versions']}")
    differing = [name for name, got in direct["results"].items() if behind["results"][name] != got]
    for name, got in direct["results"].items():
        print(f"{name}: {len(got)} answers, {'NOT the same' if name in differing else 'the same'}")
    return len(differing)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.model_clients", description=__doc__)
    parser.add_argument("--python", required=True, help="an interpreter with openai, anthropic and litellm")
    with tempfile.TemporaryDirectory() as folder:
        return 1 if asyncio.run(compare(parser.parse_args().python, Path(folder))) else 0


if __name__ == "__main__":
    sys.exit(main())
