"""The bounds of the collector, the admin listener and the beacon, and of the servers that edgeproxy calls itself."""

from typing import Final

from edgeproxy.base import http_peer, issuer_documents, signing_keys, web_listener
from edgeproxy.base.http_peer import HttpPeer
from edgeproxy.bounds.bound import HTTP1, Bound, Protocol, Reader, Side, Unit
from edgeproxy.collector import main as collector
from edgeproxy.collector.api import request_reader
from edgeproxy.collector.billing.stripe import client as stripe
from edgeproxy.collector.billing.stripe import webhook_event
from edgeproxy.collector.events import event
from edgeproxy.collector.pages import forms
from edgeproxy.collector.residency import peers
from edgeproxy.collector.webhooks import http_post
from edgeproxy.edge.directory import collector_client
from edgeproxy.edge.supervisor import admin
from edgeproxy.edge.usage import transport as shipping
from edgeproxy.hub import bounds as answers
from edgeproxy.hub import redis
from edgeproxy.regions.beacon import app as beacon
from edgeproxy.regions.beacon import collector as beacon_collector
from edgeproxy.regions.beacon import main as beacon_listener
from edgeproxy.tracing import transport as tracing
from edgeproxy.wire import batch

LISTENERS: Final = (
    (Reader.ADMIN, "admin", admin.CONNECTIONS),
    (Reader.COLLECTOR, "collector", collector.CONNECTIONS),
    (Reader.BEACON, "beacon", beacon_listener.CONNECTIONS),
)
"""Each listener of aiohttp; pages are on the collector's."""

FAILS: Final = "the call fails, and its error names the server and the bound"

CALLED: Final = (
    (Reader.ISSUERS, "issuer", issuer_documents.PEER, "a document: metadata or a key set"),
    (Reader.DIRECTORY, "directory", collector_client.PEER, "a part of the directory, or quotas"),
    (Reader.DIRECTORY, "shipping", shipping.PEER, "the answer to a batch"),
    (Reader.RECEIVERS, "webhook", http_post.PEER, "the answer of a receiver, which is not read"),
    (Reader.RECEIVERS, "traces", tracing.PEER, "the answer of a receiver of traces"),
    (Reader.RECEIVERS, "Stripe", stripe.PEER, "an answer of Stripe"),
    (Reader.RECEIVERS, "residency", peers.PEER, "the sums of another residency"),
    (Reader.BEACON, "beacon's collector", beacon_collector.PEER, "an answer of the collector"),
)
"""The servers that are called over HTTP, and what their bodies are."""


CLOSES: Final = "the connection closes"
FULL: Final = "the connection that is idle for longest closes, else the new one"
SILENT: Final = "silent clients must not keep others out"

OF_LISTENERS: Final[tuple[tuple[str, str, float, Unit, str, int | None, str], ...]] = (
    ("target", "a request target", web_listener.TARGET_BYTES_MAX, Unit.BYTES, "RFC 9112 section 3", 414, ""),
    ("field", "a field's value", web_listener.FIELD_BYTES_MAX, Unit.BYTES, "RFC 6585 section 5", 431, ""),
    ("fields", "fields of a head", web_listener.FIELDS_MAX, Unit.FIELDS, "RFC 6585 section 5", 431, ""),
    ("head time", "the time to the first head", web_listener.HEAD_SECONDS, Unit.SECONDS, SILENT, None, CLOSES),
    ("idle connection", "the time between requests", web_listener.IDLE_SECONDS, Unit.SECONDS, SILENT, None, CLOSES),
)
"""The bounds that all listeners have: name, subject, number, unit, reason, status and effect."""


def _bound_listener(reader: Reader, name: str, bounds: web_listener.Bounds) -> tuple[Bound, ...]:
    by_address = "connections of an address, or of a /64 of IPv6"
    rows = (
        *OF_LISTENERS,
        ("connections", "connections", bounds.all, Unit.ITEMS, "descriptors", None, FULL),
        ("connections of an address", by_address, bounds.per_address, Unit.ITEMS, "shares", None, FULL),
    )
    return tuple(
        Bound(f"{name} {what}", reader, (HTTP1,), subject, number, unit, Side.CLIENT, why, status=status, effect=effect)
        for what, subject, number, unit, why, status, effect in rows
    )


def _bound_body(reader: Reader, name: str, subject: str, number: float, unit: Unit, status: int, reason: str) -> Bound:
    return Bound(name, reader, (HTTP1,), subject, number, unit, Side.CLIENT, reason, status=status)


def _bound_peer(reader: Reader, name: str, peer: HttpPeer, subject: str) -> tuple[Bound, ...]:
    effect = "nothing more is read" if peer.reads_prefix else FAILS
    return (
        Bound(
            f"{name} body",
            reader,
            (HTTP1,),
            subject,
            peer.body_bytes_max,
            Unit.BYTES,
            Side.PEER,
            "memory; counted after decompression",
            effect=effect,
        ),
        Bound(
            f"{name} time",
            reader,
            (HTTP1,),
            "the time for a whole call",
            peer.seconds_max,
            Unit.SECONDS,
            Side.PEER,
            "[outgoing calls](../operations/outgoing-calls.md)",
            effect="the call fails",
        ),
    )


def _bound_every_peer(name: str, subject: str, number: float, unit: Unit, reason: str) -> Bound:
    return Bound(
        f"called server {name}",
        Reader.RECEIVERS,
        (HTTP1,),
        f"{subject}, of every server that edgeproxy calls but upstreams",
        number,
        unit,
        Side.PEER,
        reason,
        effect=FAILS,
    )


EVERY_PEER: Final = (
    _bound_every_peer(
        "head", "a head, with the interim answers before it", http_peer.HEAD_BYTES_MAX, Unit.BYTES, "memory"
    ),
    _bound_every_peer("fields", "fields of a head, or of trailers", http_peer.FIELDS_MAX, Unit.FIELDS, "CPU"),
    _bound_every_peer("field", "a line", http_peer.FIELD_BYTES_MAX, Unit.BYTES, "memory"),
    _bound_every_peer("interim answers", "1xx answers", http_peer.INTERIM_ANSWERS_MAX, Unit.ITEMS, "CPU and memory"),
    _bound_every_peer(
        "framing",
        "bytes on the wire for each byte that its body may have",
        http_peer.FRAMING_FACTOR,
        Unit.ITEMS,
        "a body in chunks of one byte takes six",
    ),
)

BODIES: Final = (
    _bound_body(
        Reader.COLLECTOR, "collector JSON", "a body of JSON", request_reader.JSON_BYTES_MAX, Unit.BYTES, 413, "CPU"
    ),
    _bound_body(
        Reader.COLLECTOR,
        "collector batch",
        "a batch of usage, after decompression. A larger one goes into quarantine",
        batch.BODY_BYTES_MAX,
        Unit.BYTES,
        422,
        "memory",
    ),
    _bound_body(Reader.COLLECTOR, "collector events", "a body of events", event.BODY_BYTES_MAX, Unit.BYTES, 413, "CPU"),
    _bound_body(Reader.COLLECTOR, "collector event count", "events at once", event.EVENTS_MAX, Unit.ITEMS, 400, "CPU"),
    _bound_body(
        Reader.COLLECTOR,
        "collector Stripe event",
        "an event of Stripe",
        webhook_event.BYTES_MAX,
        Unit.BYTES,
        413,
        "CPU",
    ),
    _bound_body(
        Reader.COLLECTOR,
        "collector body time",
        f"the time for a body, which has {request_reader.BODY_BYTES_PER_SECOND_MIN >> 10} KiB a second at least",
        request_reader.BODY_SECONDS_MAX,
        Unit.SECONDS,
        408,
        "slow bodies hold memory",
    ),
    _bound_body(Reader.PAGES, "form bytes", "a form", forms.FORM_BYTES_MAX, Unit.BYTES, 413, "CPU and memory"),
    _bound_body(Reader.PAGES, "form fields", "fields of a form", forms.FIELDS_MAX, Unit.FIELDS, 400, "CPU"),
    _bound_body(
        Reader.PAGES, "form time", "the time for a form", forms.FORM_SECONDS_MAX, Unit.SECONDS, 408, "slow bodies"
    ),
    _bound_body(
        Reader.BEACON, "beacon report", "a report of latencies", beacon.REPORT_BYTES_MAX, Unit.BYTES, 413, "memory"
    ),
    _bound_body(
        Reader.BEACON,
        "beacon report time",
        "the time for a report",
        beacon.REPORT_SECONDS_MAX,
        Unit.SECONDS,
        408,
        "slow bodies",
    ),
)


def _bound_hub(name: str, subject: str, number: float, unit: Unit, reason: str) -> Bound:
    return Bound(
        f"hub {name}",
        Reader.HUB,
        (Protocol.REDIS,),
        subject,
        number,
        unit,
        Side.PEER,
        reason,
        effect="the connection closes, and [the edge goes on alone](../limits/limits.md#several-hosts)",
    )


HUB: Final = (
    _bound_hub("elements", "elements of an array", answers.ELEMENTS_MAX, Unit.ITEMS, "a cluster has 16,384 slots"),
    _bound_hub("depth", "levels of nested arrays", answers.DEPTH_MAX, Unit.ITEMS, "the parser recurses"),
    _bound_hub(
        "answer", "an answer, and a string in it", answers.ANSWER_BYTES_MAX, Unit.BYTES, "a part of the directory"
    ),
    _bound_hub("line", "a line, such as an error's", answers.LINE_BYTES_MAX, Unit.BYTES, "memory"),
    _bound_hub("time", "the time for an answer", redis.ANSWER_SECONDS_MAX, Unit.SECONDS, "requests wait for it"),
)

OTHERS: Final = (
    Bound(
        "issuer keys",
        Reader.ISSUERS,
        (HTTP1,),
        "keys of a set",
        signing_keys.KEYS_MAX,
        Unit.ITEMS,
        Side.PEER,
        "CPU",
        effect="further keys are not read",
    ),
)

SERVICES: Final = (
    *OTHERS,
    *(bound for reader, name, bounds in LISTENERS for bound in _bound_listener(reader, name, bounds)),
    *BODIES,
    *HUB,
    *EVERY_PEER,
    *(bound for called in CALLED for bound in _bound_peer(*called)),
)
