"""The cost of a model's answer behind the edge and behind LiteLLM's proxy: `python -m loadtest.model_clients.gateways`.

Both identify a key, relay an answer of 2 KiB and one of 51 events, and count its tokens. The edge also applies a limit
in tokens to the customer. They take turns, round by round. The figure is the CPU time of all processes of a proxy, per
answer. `--litellm` is LiteLLM's command, of an environment with `litellm[proxy]`; it has no database here, and logs
errors only.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from loadtest.admin import cpu_seconds
from loadtest.bench.child import Child, tree
from loadtest.bench.scenario import COMPLETION, STREAM
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT

CONNECTIONS = 8
START_SECONDS = 120.0
LIMIT = {"rate": "100000/min", "of": "all", "reserve": "request"}
PROMPT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "word " * 200}]}


def build_settings(port: int) -> dict[str, Any]:
    """Return the settings of an edge before the service on `port`."""
    shipped = yaml.safe_load((ROOT / "config/ai.yaml").read_text())
    (route,) = shipped["routes"]
    route["rewrite"]["request"]["set"]["Authorization"] = "Bearer none"
    customers = people(acme="free")
    return {
        **customers,
        "upstreams": {"models": {**shipped["upstreams"]["models"], "endpoints": [f"http://{HOST}:{port}"]}},
        "routes": [route],
        "meters": {**shipped["meters"], "all": {"count": "total_tokens"}},
        "tiers": {**customers["tiers"], "free": {"limits": [LIMIT]}},
    }


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer as a model does that needs no time."""
    if not (await request.json()).get("stream"):
        return web.Response(body=COMPLETION, content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in STREAM:
        await response.write(event)
    return response


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    """Serve the stand-in for a model."""
    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def start_litellm(command: str, folder: Path, port: int, upstream: int) -> Child:
    """Start LiteLLM's proxy with one worker."""
    parameters = {"model": "openai/gpt-4.1", "api_base": f"http://{HOST}:{upstream}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": "gpt-4.1", "litellm_params": parameters}],
        "general_settings": {"master_key": key_of("acme")},
        "litellm_settings": {"telemetry": False, "request_timeout": 30},
    }
    file = folder / "litellm.yaml"
    file.write_text(yaml.safe_dump(settings))
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    argv = [command, "--config", str(file), "--host", HOST, "--port", str(port), "--num_workers", "1"]
    core = max(os.sched_getaffinity(0))
    return Child(argv, core=core, log=folder / "litellm.out", env=environ)


async def ask(port: int, times: int, *, stream: bool) -> None:
    """Ask so many times, over CONNECTIONS connections; each answer is 200 and states its usage."""
    left = iter(range(times))
    fields = {"Authorization": f"Bearer {key_of('acme')}"}
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=fields) as session:

        async def go_on() -> None:
            for _ in left:
                body = {**PROMPT, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
                async with session.post(f"http://{HOST}:{port}/v1/chat/completions", json=body) as response:
                    content = await response.read()
                    assert response.status == 200, content
                    assert b"prompt_tokens" in content, content

        await asyncio.gather(*(go_on() for _ in range(CONNECTIONS)))


async def ask_until_served(port: int) -> None:
    """Wait until a proxy answers. Raises TimeoutError."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await ask(port, 1, stream=False)
            except (aiohttp.ClientError, AssertionError):
                await asyncio.sleep(0.5)
            else:
                return


async def measure(pid: int, asking: Awaitable[None], times: int) -> float:
    """Return the CPU time of a proxy's processes for an answer, in µs."""
    before = cpu_seconds(tree(pid))
    await asking
    after = cpu_seconds(tree(pid))
    return sum(used - before.get(process, 0.0) for process, used in after.items()) / times * 1e6


async def compare(litellm: str, folder: Path, rounds: int) -> None:
    with closing(Ports(2)) as ports:
        upstream, port = ports.numbers
        settings = {**build_settings(upstream), "workers": 1}
        settings["tiers"]["free"]["limits"][0]["rate"] = "10000000/s"
        async with serving(upstream):
            with closing(Edge(folder / "edge", upstream, **settings)) as edge:
                await asyncio.to_thread(edge.start)
                child = start_litellm(litellm, folder, port, upstream)
                try:
                    await ask_until_served(port)
                    peers = {"edgeproxy": (edge.supervisors[0].pid, edge.port, 4000), "LiteLLM": (child.pid, port, 400)}
                    for stream in (False, True):
                        found: dict[str, list[float]] = {name: [] for name in peers}
                        for _ in range(rounds):
                            for name, (pid, at, times) in peers.items():
                                found[name].append(await measure(pid, ask(at, times, stream=stream), times))
                        for name, values in found.items():
                            kind = "stream of 51 events" if stream else "answer of 2 KiB"
                            spread = f"{min(values):,.0f} to {max(values):,.0f}"
                            print(f"{name:10} {kind:20} {statistics.median(values):8,.0f} µs of CPU ({spread})")
                finally:
                    child.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.model_clients.gateways", description=__doc__)
    parser.add_argument("--litellm", default="litellm", help="LiteLLM's command (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each takes its turn (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(given.litellm, Path(folder), given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
