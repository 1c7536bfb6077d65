"""The program of the peer "aiohttp": edgeproxy's job with aiohttp's server and client, and dictionaries.

Started as `python by_hand.py SETTINGS` (JSON). It shares no code with edgeproxy, and counts in its own memory.
"""

import asyncio
import itertools
import json
import math
import os
import re
import sys
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
NOT_FROM_CLIENTS = frozenset(
    (
        "authorization",
        "x-api-key",
        "x-request-id",
        "traceparent",
        "x-edge-region",
        "x-customer-id",
        "x-customer-tier",
        "x-edge-signature",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-real-ip",
        "forwarded",
        "via",
    )
)
DROPPED = HOP_BY_HOP | NOT_FROM_CLIENTS | {name.replace("-", "_") for name in NOT_FROM_CLIENTS}
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
BOUNDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5.0, 10.0)
STREAM_ABOVE = 64 << 10


class Window:
    """A sliding window of two counts; the earlier one is weighted by its remaining share of the window."""

    def __init__(self, limit: int, seconds: int) -> None:
        self.limit = limit
        self.seconds = seconds
        self._cell = 0
        self._counts = (0, 0)

    def charge(self, now: float) -> int | None:
        """Charge a request; return the remaining ones, or None if there is no room (and no charge)."""
        position = now / self.seconds
        cell = int(position)
        if cell != self._cell:
            self._counts = (self._counts[1] if cell == self._cell + 1 else 0, 0)
            self._cell = cell
        before, current = self._counts
        used = current + 1 + before * (1 - (position - cell))
        if used > self.limit:
            return None
        self._counts = (before, current + 1)
        return self.limit - math.ceil(used)


@dataclass
class Person:
    name: str
    tier: str
    limit: int
    at_once: int
    window: Window
    under_way: int = 0


class Proxy:
    """One upstream connection pool, the customers, and all counts."""

    def __init__(self, settings: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._session = session
        self._region = settings["region"]
        self._routes = frozenset(settings["routes"])
        self._address_rate = settings["address_rate"]
        self._addresses: dict[str, Window] = {}
        self._people = {
            digest: Person(name, tier, limit, at_once, Window(limit, 60))
            for digest, (name, tier, limit, at_once) in settings["people"].items()
        }
        self._endpoints = itertools.cycle(f"http://127.0.0.1:{port}" for port in settings["upstreams"])
        self.usage: Counter[str] = Counter()
        self._metrics: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.monotonic()
        request_id = os.urandom(16).hex()
        route = request.path.split("/", 2)[1]
        answer, person = await self._exchange(request, route, request_id)
        self._metrics[route, person.tier if person else "-", answer.status] += 1
        took = time.monotonic() - began
        self._buckets[route, bisect_left(BOUNDS, took)] += 1
        self._seconds[route] += took
        return answer

    async def _exchange(
        self, request: web.BaseRequest, route: str, request_id: str
    ) -> tuple[web.StreamResponse, Person | None]:
        now = time.time()
        address = request.remote or ""
        guard = self._addresses.get(address)
        if guard is None:
            guard = self._addresses[address] = Window(self._address_rate, 1)
        if guard.charge(now) is None:
            return problem(429, "Too many requests from this address", request_id), None
        if route not in self._routes:
            return problem(404, "No such route", request_id), None
        person = self._identify(request)
        if person is None:
            return problem(401, "No or unknown key", request_id, {"WWW-Authenticate": "Bearer"}), None
        if person.under_way >= person.at_once:
            return problem(429, "Too many requests at once", request_id, {"Retry-After": "1"}), person
        left = person.window.charge(now)
        reset = math.ceil(60 - now % 60)
        shown = {
            "RateLimit-Policy": f'"{person.tier}";q={person.limit};w=60',
            "RateLimit": f'"{person.tier}";r={left or 0};t={reset}',
        }
        if left is None:
            return problem(429, "Quota exceeded", request_id, {**shown, "Retry-After": str(reset)}), person
        stamps = self._stamped(request, person, request_id)
        person.under_way += 1
        try:
            return await self._relay(request, person, route, stamps, {**shown, "X-Request-Id": request_id}), person
        finally:
            person.under_way -= 1

    def _identify(self, request: web.BaseRequest) -> Person | None:
        authorization = request.headers.get("Authorization", "")
        key = authorization[7:] if authorization.startswith("Bearer ") else request.headers.get("X-API-Key")
        return None if key is None else self._people.get(sha256(key.encode()).hexdigest())

    def _stamped(self, request: web.BaseRequest, person: Person, request_id: str) -> CIMultiDict[str]:
        """Return the fields of the upstream request."""
        given = request.headers
        fields = CIMultiDict((name, value) for name, value in given.items() if name.lower() not in DROPPED)
        trace = TRACEPARENT.fullmatch(given.get("traceparent", ""))
        trace_id, flags = trace.groups() if trace else (os.urandom(16).hex(), "01")
        fields["traceparent"] = f"00-{trace_id}-{os.urandom(8).hex()}-{flags}"
        fields["X-Request-Id"] = request_id
        fields["X-Edge-Region"] = self._region
        fields["X-Customer-Id"] = person.name
        fields["X-Customer-Tier"] = person.tier
        fields["X-Forwarded-For"] = request.remote or ""
        fields["X-Forwarded-Proto"] = request.scheme
        fields["X-Forwarded-Host"] = request.host
        fields["Via"] = f"{given['Via']}, 1.1 edge" if "Via" in given else "1.1 edge"
        return fields

    async def _relay(
        self,
        request: web.BaseRequest,
        person: Person,
        route: str,
        fields: CIMultiDict[str],
        shown: dict[str, str],
    ) -> web.StreamResponse:
        url = URL(next(self._endpoints) + request.raw_path, encoded=True)
        body = request.content if request.body_exists else None
        try:
            async with self._session.request(
                request.method, url, headers=fields, data=body, allow_redirects=False
            ) as upstream:
                kept = CIMultiDict(
                    (name, value) for name, value in upstream.headers.items() if name.lower() not in HOP_BY_HOP
                )
                kept.update(shown)
                if upstream.status < 500:
                    self.usage[f"{person.name}|{route}"] += 1
                length = upstream.content_length
                if length is not None and length < STREAM_ABOVE:
                    return web.Response(status=upstream.status, headers=kept, body=await upstream.read())
                answer = web.StreamResponse(status=upstream.status, headers=kept)
                await answer.prepare(request)
                async for piece in upstream.content.iter_any():
                    await answer.write(piece)
                await answer.write_eof()
                return answer
        except aiohttp.ClientError as error:
            return problem(502, str(error), shown["X-Request-Id"])


def problem(status: int, title: str, request_id: str, more: dict[str, str] | None = None) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": title, "instance": request_id}
    fields = {"X-Request-Id": request_id, **(more or {})}
    return web.Response(
        status=status, headers=fields, body=json.dumps(body).encode(), content_type="application/problem+json"
    )


async def main(settings: dict[str, Any]) -> None:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=75)
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    ) as session:
        proxy = Proxy(settings, session)

        async def usage(request: web.BaseRequest) -> web.Response:
            return web.json_response(proxy.usage)

        for handler, port in ((proxy.handle, settings["port"]), (usage, settings["counts"])):
            # Cancelled when its client disconnects, so that its resources are freed.
            runner = web.ServerRunner(web.Server(handler, access_log=None, handler_cancellation=True))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
