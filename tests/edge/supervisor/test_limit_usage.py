"""A supervisor reports limit usage of watched customers, only to the collector that watches them."""

import asyncio
from http import HTTPStatus

import orjson

from edgeproxy.edge.supervisor.limit_report import Policy
from edgeproxy.edge.supervisor.limit_usage import LimitUsageReporter, parse_watched
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.wire.limit_usage import LIMITS_MAX, WATCHED_MAX, LimitUsageReport


def policy(name: str, used: int | None, limit: int = 100, window: float = 10.0, **more: str) -> Policy:
    """Return a line of `GET /limits/CUSTOMER`."""
    line: Policy = {"name": name, "scope": "customer", "limit": limit, "window_s": window, "used": used}
    return {**line, "mode": "enforce", "algorithm": "sliding_window", **more}


class Scene:
    """A reporter, the usage of customers by residency and name, and the answers of each collector."""

    def __init__(self, *residencies: str) -> None:
        self.used: dict[tuple[str, str], list[Policy]] = {}
        self.watched: dict[str, list[str]] = {}
        self.status = HTTPStatus.OK
        self.now = 0.0
        self.sent: list[tuple[str, LimitUsageReport]] = []
        self.reads = 0
        self.reporter = LimitUsageReporter(
            self.read, "here", self.send, lambda: residencies or ("",), clock=lambda: self.now
        )

    async def read(self, residency: str, customer: str) -> list[Policy]:
        self.reads += 1
        return self.used[residency, customer]

    async def send(self, report: LimitUsageReport, residency: str) -> Reply:
        self.sent.append((residency, report))
        return Reply(self.status, orjson.dumps({"watched": self.watched.get(residency, [])}))

    def turn(self) -> None:
        """Send a report, then read usage once."""
        asyncio.run(self.reporter.report())
        asyncio.run(self.reporter.read())

    def reported(self) -> dict[str, list[tuple[str, int, int]]]:
        """Return the limits of the last report by customer, each with usage and peak."""
        usage = self.sent[-1][1].usage
        return {
            customer: [(limit.limit, limit.used, limit.peak) for limit in limits] for customer, limits in usage.items()
        }


def test_only_watched_customers_are_read_and_peaks_last_during_a_watch() -> None:
    scene = Scene()
    scene.used["", "acme"] = [policy("burst", 40)]
    scene.turn()
    assert scene.reads == 0
    scene.watched[""] = ["acme"]
    scene.turn()
    scene.used["", "acme"] = [policy("burst", 7), policy("of-many", None), policy("day", 5, algorithm="quota")]
    asyncio.run(scene.reporter.read())
    scene.turn()
    assert scene.reported() == {"acme": [("burst", 7, 40)]}
    scene.watched[""] = []
    scene.turn()
    scene.watched[""] = ["acme"]
    scene.turn()
    scene.turn()
    assert scene.reported() == {"acme": [("burst", 7, 7)]}, "the peak of an earlier watch is forgotten"


def test_a_customer_is_reported_only_to_the_collector_of_its_residency() -> None:
    scene = Scene("", "us")
    scene.used["", "anna"] = [policy("burst", 3)]
    scene.watched = {"": ["anna"], "us": ["anna"]}
    scene.turn()
    scene.turn()
    reports = {residency: dict(report.usage) for residency, report in scene.sent[-2:]}
    assert list(reports[""]) == ["anna"]
    assert reports["us"] == {}


def test_a_report_keeps_the_most_used_limits_and_the_most_used_key() -> None:
    scene = Scene()
    scene.watched[""] = ["acme"]
    keys = [policy("by-key", n, scope="key", key=f"{n:08x}") for n in (3, 9, 5)]
    routes = [policy("by-route", n, scope="route", route=f"r{n}") for n in range(LIMITS_MAX + 5)]
    scene.used["", "acme"] = [*keys, *routes, policy("concurrency", 2, limit=2, window=0)]
    scene.turn()
    scene.turn()
    (limits,) = scene.sent[-1][1].usage.values()
    assert len(limits) == LIMITS_MAX
    assert limits[0].limit == "concurrency"
    assert [limit.used for limit in limits if limit.limit == "by-key"] == [9]
    names = [f"c{n}" for n in range(1000)]
    assert parse_watched(orjson.dumps({"watched": names})) == names[:WATCHED_MAX]
    for body in (b"", b"[]", b'{"watched": 7}', b'{"watched": [7, null]}'):
        assert parse_watched(body) == []


def test_a_collector_without_the_api_is_tried_again_after_ten_minutes() -> None:
    scene = Scene()
    scene.status = HTTPStatus.NOT_FOUND
    scene.turn()
    scene.turn()
    assert len(scene.sent) == 1
    scene.now += 601
    scene.turn()
    assert len(scene.sent) == 2
