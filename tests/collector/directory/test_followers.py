"""The edges that fetch the directory from a collector, and the version of each."""

import pytest

from edgeproxy.collector.directory import followers
from edgeproxy.collector.directory.followers import ABSENT_SECONDS, Followers, FollowerVersion


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(followers, "monotonic", clock)
    return clock


def test_an_edge_has_the_version_that_it_asks_after(clock: Clock) -> None:
    edges = Followers()
    edges.begin("b.1", "v1")
    edges.begin("a.1", None)
    edges.end("b.1")
    edges.begin("b.1", "v2")
    assert edges.list_versions() == [FollowerVersion("a.1", None), FollowerVersion("b.1", "v2")]


def test_followers_keep_a_waiting_edge_and_forget_an_absent_edge(clock: Clock) -> None:
    edges = Followers()
    edges.begin("waits.1", "v1")
    edges.begin("gone.1", "v1")
    clock.now += 29
    edges.end("gone.1")
    clock.now += ABSENT_SECONDS
    assert [name for name, _ in edges.list_versions()] == ["gone.1", "waits.1"]
    clock.now += 1
    assert [name for name, _ in edges.list_versions()] == ["waits.1"]


def test_the_list_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are whatever a holder of an edge's token sends."""
    monkeypatch.setattr(followers, "FOLLOWERS_MAX", 2)
    edges = Followers()
    for name in ("a.1", "b.1", "a.1", "c.1"):
        edges.begin(name, "v1")
    edges.end("b.1")
    assert [name for name, _ in edges.list_versions()] == ["a.1", "c.1"]
