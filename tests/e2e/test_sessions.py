"""Clients as programs use them: redirects followed, cookies kept, contents decoded, connections used again."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import httpx
import pytest

from tests.support.ask import PATIENCE
from tests.support.clients import LONG, own_session
from tests.support.customers import UNLIMITED, key_of
from tests.support.edge import Edge
from tests.support.ports import HOST

FIELDS = {"X-API-Key": key_of(UNLIMITED)}
Visit = Callable[[str, Sequence[str]], tuple[list[Any], int]]
"""(base, paths) -> what each path leads to, which is JSON, and over how many connections."""


def with_httpx(base: str, paths: Sequence[str]) -> tuple[list[Any], int]:
    found, used = [], set()
    with httpx.Client(trust_env=False, follow_redirects=True, headers=FIELDS) as client:
        for path in paths:
            answer = client.get(base + path)
            found.append(answer.json())
            used.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    return found, len(used)


def with_requests(base: str, paths: Sequence[str]) -> tuple[list[Any], int]:
    with own_session() as session:
        session.headers.update(FIELDS)
        found = [session.get(base + path, timeout=PATIENCE).json() for path in paths]
        pools = session.get_adapter(base).poolmanager.pools
        return found, sum(pools[key].num_connections for key in pools.keys())  # noqa: SIM118, it is no mapping


def with_aiohttp(base: str, paths: Sequence[str]) -> tuple[list[Any], int]:
    made = []

    async def count(*_: object) -> None:
        made.append(1)

    async def visit() -> list[Any]:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(count)
        jar = aiohttp.CookieJar(unsafe=True)  # it keeps none for a host that is an address otherwise
        found = []
        async with aiohttp.ClientSession(headers=FIELDS, cookie_jar=jar, trace_configs=[tracing]) as session:
            for path in paths:
                async with session.get(base + path) as answer:
                    found.append(await answer.json())
        return found

    return asyncio.run(visit()), len(made)


def with_curl(base: str, paths: Sequence[str]) -> tuple[list[Any], int]:
    command = ["curl", "-sL", "--noproxy", "*", "--compressed", "--max-time", str(LONG), "--cookie", ""]
    for name, value in FIELDS.items():
        command += ["--header", f"{name}: {value}"]
    command += ["--write-out", "%{num_connects} ", *(base + path for path in paths)]
    text = subprocess.run(command, capture_output=True, check=True, timeout=LONG).stdout.decode()
    found, made = [], 0
    while text:
        one, end = json.JSONDecoder().raw_decode(text)
        connects, _, text = text[end:].lstrip().partition(" ")
        found.append(one)
        made += int(connects)
    return found, made


CLIENTS: dict[str, Visit] = {
    "curl": with_curl,
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "requests": with_requests,
}
if shutil.which("curl") is None:
    del CLIENTS["curl"]


@pytest.fixture(params=CLIENTS.values(), ids=list(CLIENTS))
def visit(request: pytest.FixtureRequest) -> Visit:
    """Each client in turn."""
    client: Visit = request.param
    return client


def test_redirects_are_followed_and_cookies_kept(visit: Visit, api: Edge) -> None:
    base = f"http://{HOST}:{api.port}"
    redirects = ("/redirect/3", "/absolute-redirect/2", "/redirect-to?url=%2Fget%3Fa%3D1&status_code=307")
    (relative, absolute, elsewhere, *cookies), _ = visit(base, (*redirects, "/cookies/set?a=1&b=2", "/cookies"))
    assert (relative["url"], absolute["url"], elsewhere["args"]) == (f"{base}/get", f"{base}/get", {"a": "1"})
    assert cookies == [{"cookies": {"a": "1", "b": "2"}}] * 2


def test_compressed_contents_are_decoded(visit: Visit, api: Edge) -> None:
    (gzipped, deflated), _ = visit(f"http://{HOST}:{api.port}", ("/gzip", "/deflate"))
    assert (gzipped["gzipped"], deflated["deflated"]) == (True, True)


def test_many_requests_use_one_connection(visit: Visit, api: Edge) -> None:
    base, paths = f"http://{HOST}:{api.port}", [f"/anything/{number}" for number in range(20)]
    found, connections = visit(base, paths)
    assert [one["url"] for one in found] == [base + path for path in paths]
    assert connections == 1
