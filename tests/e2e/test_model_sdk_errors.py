"""The SDKs of OpenAI and Anthropic print the reason of each error that the edge answers."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

PYTHON = Path(sys.prefix) / "sdks/bin/python"
SESSION = """
import json, sys, anthropic, openai

printed = {}
for case, (path, key) in json.load(sys.stdin).items():
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 3000 if case == "413" else "x"}]}
    query = {"wait": "5000"} if case == "504" else {}
    for sdk in ("openai", "anthropic"):
        try:
            if sdk == "openai":
                options = {"base_url": f"{sys.argv[1]}/{path}/openai", "max_retries": 0, "default_query": query}
                openai.OpenAI(api_key=key, **options).chat.completions.create(**body)
            else:
                options["base_url"] = f"{sys.argv[1]}/{path}/anthropic"
                client = anthropic.Anthropic(auth_token=key, **options)
                client.messages.create(max_tokens=1, **body)
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            printed[f"{sdk} {case}"] = [error.status_code, str(error)]
print(json.dumps(printed))
"""
CASES = {
    "401": ("api", "no-key"),
    "402": ("api", key_of("pays-not")),
    "404": ("nothing", key_of("acme")),
    "413": ("api", key_of("acme")),
    "429": ("api", key_of("limited")),
    "502": ("gone", key_of("acme")),
    "503": ("down", key_of("acme")),
    "504": ("slow", key_of("acme")),
}
"""The path and key that lead to each status."""
REASONS = {
    "401": "key",
    "402": "The invoice of May is unpaid",
    "404": "No route",
    "413": "body",
    "429": "own: 1 of 1",
    "502": "could not be connected to",
    "503": "No endpoint",
    "504": "in time",
}
"""A part of the edge's reason for each status."""

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="there are no SDKs of models' APIs on this machine")


def test_sdks_print_the_reason_of_each_error(tmp_path: Path, upstream: Upstream) -> None:
    customers = people(acme="free", limited=["1/day"], **{"pays-not": "free"})
    customers["customers"]["pays-not"]["paused"] = {"why": REASONS["402"], "status": 402}
    with closing(Ports(1)) as ports, closing(Edge(tmp_path / "edge", upstream.port)) as edge:
        api = {"endpoints": [f"http://{HOST}:{upstream.port}"], "retry": {"attempts": 1}}
        gone = api | {"endpoints": [f"http://{HOST}:{ports.numbers[0]}"]}
        upstreams = {
            "api": api,
            "gone": gone,
            "down": gone | {"health": {"path": "/", "every": "1s"}},
            "slow": api | {"timeouts": {"response_head": "200ms"}},
        }
        routes = [
            {"name": f"{name}-{sdk}", "path": f"/{name}/{sdk}/*", "upstream": name, "response_usage": sdk}
            for name in upstreams
            for sdk in ("openai", "anthropic")
        ]
        meters = {"requests": {"count": "requests"}, "tokens": {"count": "output_tokens"}}
        edge.start(**customers, meters=meters, upstreams=upstreams, routes=routes, limits={"body": "2KiB"})
        key = {"X-API-Key": key_of("acme")}
        until(lambda: ask(edge.port, "/down/openai", fields=key).status == 503, "the check finds it down")
        assert ask(edge.port, "/api/openai", fields={"X-API-Key": key_of("limited")}).status == 200
        session = subprocess.run(
            [PYTHON, "-c", SESSION, f"http://{HOST}:{edge.port}"],
            input=json.dumps(CASES),
            capture_output=True,
            text=True,
            check=True,
            timeout=200,
        )
    printed = json.loads(session.stdout)
    assert {case: status for case, (status, _) in printed.items()} == {
        f"{sdk} {status}": int(status) for sdk in ("openai", "anthropic") for status in CASES
    }
    for case, (_, text) in printed.items():
        assert REASONS[case.partition(" ")[2]] in text, case
