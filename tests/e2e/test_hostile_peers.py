"""Calls of servers that send hostile responses: each call ends in time and does not block the event loop. Its error
names the peer and the bound. See docs/operations/outgoing-calls.md.
"""

import asyncio
import gc
import json
import ssl
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edgeproxy.base import event_loop, issuer_documents
from edgeproxy.base.client_tls import ClientTls
from edgeproxy.base.http_peer import HttpPeer
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.trust import TlsFiles
from edgeproxy.collector.billing.stripe import client as stripe
from edgeproxy.collector.exports import clickhouse
from edgeproxy.collector.pages import checks
from edgeproxy.collector.residency import peers
from edgeproxy.collector.webhooks import http_post
from edgeproxy.config.collector.billing import Stripe as StripeSettings
from edgeproxy.config.collector.residencies import OtherResidency
from edgeproxy.config.edge.upstreams import Endpoint
from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.config.tracing import Tracing
from edgeproxy.edge.directory import collector_client
from edgeproxy.edge.supervisor.health import ProbeTarget, ProbeTerms
from edgeproxy.edge.supervisor.probe import PEER as HEALTH_CHECK
from edgeproxy.edge.supervisor.probe import Prober, probe_address
from edgeproxy.edge.usage.transport import PEER as COLLECTOR
from edgeproxy.edge.usage.transport import HttpTransport
from edgeproxy.probe import fetch
from edgeproxy.regions.beacon import collector as beacon
from edgeproxy.tracing import transport as tracing
from edgeproxy.wire.batch import Batch, format_batch
from tests.support import hostile_peer
from tests.support.hostile_peer import PATTERNS

SECONDS_MAX = 0.3
"""Seconds for a call that only its time ends. The product's calls may take longer."""
BOUNDED_SECONDS_MAX = 5.0
"""Seconds for a call that another bound ends, which must come first on a loaded machine too."""
LATE_SECONDS_MAX = 4.0
"""Further seconds that a call may take, of the time in which this process runs. Without a bound it would never end."""
TURN_SECONDS_MAX = 0.05
"""CPU seconds for a turn of the event loop. A new TLS context has its own allowance."""
PARSER_BYTES_MAX = 32 << 20
"""Memory that a call may take beside the bytes of its body: pieces of the decompressor, and the parser's."""

Ready = Callable[[], None]
Call = Callable[[str, float, Ready], Awaitable[object]]
"""A call of the server at a URL, which takes so many seconds at most. It calls `Ready` when its client can send, and
then returns its result or raises."""


async def check_health(url: str, seconds: float, ready: Ready) -> object:
    tls = ClientTls(UpstreamTls(verify=False)) if url.startswith("https") else None
    ready()
    return await probe_address(Endpoint(url=url), "127.0.0.1", "/", seconds, tls)


async def check_health_by_grpc(url: str, seconds: float, ready: Ready) -> object:
    ready()
    terms = ProbeTerms("", seconds, UpstreamTls(), service="")
    return await Prober({})(ProbeTarget("api", url, "127.0.0.1", terms))


async def probe_edge(url: str, seconds: float, ready: Ready) -> object:
    request = fetch.create_fetch(None)
    ready()
    return (await asyncio.to_thread(request, f"{url}/", {})).status


async def export_spans(url: str, seconds: float, ready: Ready) -> object:
    transport = tracing.HttpTransport(Tracing(endpoint=url, timeout=seconds))
    try:
        return (await transport.send(ExportTraceServiceRequest())).why
    finally:
        await transport.close()


async def ship(url: str, seconds: float, ready: Ready) -> object:
    transport = HttpTransport(url, total=seconds)
    batch = Batch("edge-1", "here", 3, 0, 0, "0" * 64, (("acme", "requests", "v1", 1),))
    try:
        return await transport(batch, format_batch(batch))
    finally:
        await transport.close()


async def follow_directory(url: str, seconds: float, ready: Ready) -> object:
    client = collector_client.CollectorClient(Usage(collector=url))
    try:
        return await client.get("/head", {})
    finally:
        await client.close()


async def fetch_keys(url: str, seconds: float, ready: Ready) -> object:
    return await issuer_documents.fetch_json(url)


async def report_latencies(url: str, seconds: float, ready: Ready) -> object:
    client = beacon.Collector(url, "token", TlsFiles(), None)
    ready()
    try:
        return await client.fetch_best("192.0.2.0/24", None, 0.0)
    finally:
        await client.close()


async def deliver_webhook(url: str, seconds: float, ready: Ready) -> object:
    failure = await http_post.post_body(url, b"{}", {}, lambda _: None)
    return None if failure is None else failure.why


async def call_stripe(url: str, seconds: float, ready: Ready) -> object:
    client = stripe.Stripe(StripeSettings(base=url), {"STRIPE_SECRET_KEY": "sk_test_hostile"})
    ready()
    try:
        return await client.call("v1.customers.retrieve", "cus_1")
    finally:
        await client.close()


async def send_meter_event(url: str, seconds: float, ready: Ready) -> object:
    client = stripe.Stripe(StripeSettings(base=url), {"STRIPE_SECRET_KEY": "sk_test_hostile"})
    ready()
    try:
        return await client.send_event("key", {"event_name": "calls"})
    finally:
        await client.close()


async def ask_residency(url: str, seconds: float, ready: Ready) -> object:
    return (await peers.fetch_status("us", OtherResidency(url=url)))["state"]


async def ask_clickhouse(url: str, seconds: float, ready: Ready) -> object:
    async with clickhouse.open_clickhouse(f"{url}/usage", {}) as server:
        return await server.fetch_stored("usage")


async def check_region(url: str, seconds: float, ready: Ready) -> object:
    async with checks.open_session(checks.PEER) as session, session.get(url, allow_redirects=False) as response:
        return await response.content.readany()


CALLS: dict[str, tuple[Call, HttpPeer]] = {
    "health check": (check_health, HEALTH_CHECK),
    "health check over gRPC": (check_health_by_grpc, HEALTH_CHECK),
    "probe": (probe_edge, HEALTH_CHECK),
    "traces": (export_spans, tracing.PEER),
    "usage": (ship, COLLECTOR),
    "directory": (follow_directory, collector_client.PEER),
    "keys of an issuer": (fetch_keys, issuer_documents.PEER),
    "beacon": (report_latencies, beacon.PEER),
    "webhook": (deliver_webhook, http_post.PEER),
    "Stripe": (call_stripe, stripe.PEER),
    "meter events": (send_meter_event, stripe.PEER),
    "residency": (ask_residency, peers.PEER),
    "ClickHouse": (ask_clickhouse, clickhouse.PEER),
    "region": (check_region, checks.PEER),
}
HTTP2_PATTERNS = [pattern for pattern in PATTERNS if pattern.startswith("HTTP/2")]
BOUNDS = {
    "interim answers": "more than 32 interim answers",
    "continuations": "more than 32 interim answers",
    "empty lines": "a head of more than 65536 bytes",
    "a long field": "a line of more than 8192 bytes",
    "many fields": "more than 128 fields",
}
"""The bound that each pattern exceeds before the body. Most calls report it."""
OTHER_BOUNDS = {
    "residency": {},
    "probe": {},
    "health check over gRPC": dict.fromkeys(HTTP2_PATTERNS, "more than 163840 bytes"),
}
"""The bounds for calls whose result is a state, and for calls that do not use HTTP/1.1."""


EVERY_CALL = (
    "interim answers",
    "a long field",
    "a long body",
    "a bomb",
    "a trickled body",
    "silence",
    "a trickled handshake",
)
"""The patterns that end each call: a call may leave out the shared reader, or its own bound of bytes or seconds."""
EVERY_PATTERN = ("directory", "health check", "health check over gRPC", "probe")
"""A call of each reader, and of each set of bounds for heads. These decide about all other patterns."""
PAIRS = [(name, pattern) for name in CALLS for pattern in PATTERNS if pattern in EVERY_CALL or name in EVERY_PATTERN]


def find_bound(name: str, pattern: str) -> str | None:
    """Return the bound that ends a call before its time, or None."""
    return OTHER_BOUNDS.get(name, BOUNDS).get(pattern)


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Start the hostile servers, and yield the port of each pattern."""
    command = [sys.executable, hostile_peer.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.kill()


@pytest.fixture(scope="module", autouse=True)
def _no_garbage_of_imports() -> Iterator[None]:
    """Spare the garbage collector the imported modules, as the product's processes do: they take it 0.1 s of CPU."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def limit_calls(seconds: float) -> Iterator[None]:
    """Limit the calls whose seconds are no argument."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (collector_client, issuer_documents, beacon, http_post, stripe, peers, clickhouse, checks):
            patch.setattr(module, "PEER", module.PEER._replace(seconds_max=seconds))
        patch.setattr(http_post, "SECONDS_MAX", seconds)
        patch.setattr(fetch, "ANSWER_TIMEOUT", seconds)
        yield


def measure_memory() -> int:
    """Return the resident anonymous memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def measure_context() -> float:
    """Return the CPU seconds of a new TLS context: 0.02, and 0.07 on a loaded machine.

    A call over TLS creates one in its first turn. It reads the certificates of this host's authorities.
    """
    began = time.thread_time()
    ssl.create_default_context()
    return time.thread_time() - began


async def call_and_measure(call: Call, url: str, seconds: float = BOUNDED_SECONDS_MAX) -> tuple[str, float, float, int]:
    """Return the outcome of a call, its seconds, the CPU seconds of the longest turn, and the memory in bytes."""
    longest, last, base = 0.0, time.thread_time(), measure_memory()
    most = base

    async def watch() -> None:
        nonlocal longest, last, most
        while True:
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
            if time.monotonic_ns() & 0xF == 0:
                most = max(most, measure_memory())

    def ready() -> None:
        nonlocal longest, last, base, most
        longest, last, base = 0.0, time.thread_time(), measure_memory()
        most = base

    tasks = Tasks()
    tasks.start("watch", watch())
    began = time.thread_time()  # `watch` never rests, so this is the time without the turns of other processes.
    try:
        async with asyncio.timeout(10 * (seconds + LATE_SECONDS_MAX)):
            with limit_calls(seconds):
                outcome = str(await call(url, seconds, ready))
    except Exception as error:
        outcome = str(error) or type(error).__name__
    took, most = time.thread_time() - began, max(most, measure_memory())
    await tasks.cancel()
    return outcome, took, longest, most - base


@pytest.mark.parametrize(("name", "pattern"), PAIRS)
def test_hostile_answer_ends_only_its_own_call(name: str, pattern: str, ports: dict[str, int]) -> None:
    call, peer = CALLS[name]
    bound = find_bound(name, pattern)
    seconds = SECONDS_MAX if bound is None else BOUNDED_SECONDS_MAX
    scheme = "https" if pattern == "a trickled handshake" else "http"
    url = f"{scheme}://127.0.0.1:{ports[pattern]}"
    turn_max = TURN_SECONDS_MAX + (measure_context() if scheme == "https" else 0.0)
    gc.collect()  # Each TLS context of an earlier call takes some milliseconds of CPU to free.
    outcome, took, turn, memory = event_loop.run(call_and_measure(call, url, seconds))
    assert took < seconds + LATE_SECONDS_MAX, outcome
    assert memory < peer.body_bytes_max + PARSER_BYTES_MAX
    assert turn < turn_max, outcome
    assert bound is None or f"{peer.name}'s answer had {bound}" in outcome


def test_failed_call_frees_its_body_without_the_garbage_collector(ports: dict[str, int]) -> None:
    async def call_repeatedly() -> int:
        await call_and_measure(ask_clickhouse, url)
        before, _ = tracemalloc.get_traced_memory()
        await call_and_measure(ask_clickhouse, url)
        return tracemalloc.get_traced_memory()[0] - before

    url = f"http://127.0.0.1:{ports['a bomb']}"
    gc.disable()
    tracemalloc.start()
    try:
        kept = event_loop.run(call_repeatedly())
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 1 << 20
