"""The edge closes an idle upstream connection before the upstream does, if the upstream states its timeout."""

import pytest

from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection
from edgeproxy.edge.proxy.upstreams import idle_lifetime
from edgeproxy.edge.proxy.upstreams.idle_lifetime import FORGET_SECONDS, IdleLifetime
from tests.support.transcript import Edge, chunks, get, head, ok
from tests.support.wire import PATIENCE


async def kept_after(edge: Edge, *answers: bytes) -> UpstreamConnection:
    """The one connection that the edge keeps, after these answers over it."""
    client, upstream = await edge.forwards()
    await upstream.tells(client, answers[0])
    for answer in answers[1:]:
        await client.sends(get())
        await upstream.serves(client, answer)
    (server,) = edge.endpoint().idle
    return server


IN_PIECES = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Keep-Alive: timeout=10") + chunks(b"hello")


@pytest.mark.parametrize("answer", [ok(b"a", "Keep-Alive: timeout=10, max=99"), IN_PIECES], ids=["whole", "in pieces"])
async def test_idle_connection_is_kept_shorter_than_the_keep_alive_timeout(edge: Edge, answer: bytes) -> None:
    assert (await kept_after(edge, answer)).idle_seconds == 9.0


async def test_every_connection_learns_for_itself_also_from_heads_that_were_seen_before(edge: Edge) -> None:
    for _ in range(3):
        server = await kept_after(edge, ok(b"a", "Keep-Alive: timeout=10"), ok(b"a", "Keep-Alive: timeout=10"))
        assert server.idle_seconds == 9.0
        server.transport.close()
        await edge.until(lambda: not edge.endpoint().idle)


async def test_idle_connection_is_kept_at_most_the_configured_time(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"idle": "5s"}
    assert (await kept_after(edge, ok(b"a", "Keep-Alive: timeout=600"))).idle_seconds == 5.0


async def test_idle_time_is_the_configured_one_if_the_server_states_none(edge: Edge) -> None:
    assert (await kept_after(edge, ok())).idle_seconds == 60.0


async def test_a_field_in_the_body_says_nothing(edge: Edge) -> None:
    assert (await kept_after(edge, ok(b"x\r\nKeep-Alive: timeout=3\r\n"))).idle_seconds == 60.0


async def test_idle_connection_is_closed_after_its_time(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.tells(client, ok(b"a", "Keep-Alive: timeout=2"))
    (server,) = edge.endpoint().idle
    server.idle_seconds /= 10
    await client.sends(get())
    await upstream.serves(client, ok())
    await upstream.gets_eof()
    assert not edge.endpoint().idle


@pytest.mark.parametrize("seconds", [0, 1])
async def test_connection_with_a_tiny_keep_alive_timeout_is_not_kept(edge: Edge, seconds: int) -> None:
    client, upstream = await edge.forwards()
    await upstream.tells(client, ok(b"a", f"Keep-Alive: timeout={seconds}"))
    await upstream.gets_eof()
    assert not edge.endpoint().idle


async def test_the_field_itself_is_not_passed_on(edge: Edge) -> None:
    _, answer = await edge.passes(get(), ok(b"a", "Keep-Alive: timeout=10"))
    assert "Keep-Alive" not in answer


async def test_connection_closed_after_its_answer_is_not_reused(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.sends(ok())
    upstream.closes()
    await client.gets_answer()
    await edge.until(lambda: not edge.endpoint().idle)
    another = await edge.brings(client, head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 0"))
    assert (await another.tells(client, ok())).status == 200


async def test_idle_lifetime_is_learnt_from_connections_closed_by_the_server(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_lifetime, "SEPARATE_SECONDS", 0.0)
    monkeypatch.setattr(idle_lifetime, "AGREE_SECONDS", 60.0)  # A machine may stand still.
    client = await edge.client()
    for _ in range(idle_lifetime.CLOSINGS):
        upstream = await edge.brings(client, get())
        await upstream.tells(client, ok())
        upstream.closes()
        await edge.until(lambda: not edge.endpoint().idle)
    upstream = await edge.brings(client, get())
    await upstream.tells(client, ok())
    await upstream.gets_eof()
    assert edge.endpoint().idle_lifetime.seconds < PATIENCE


async def test_learnt_idle_lifetime_applies_to_idle_connections(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.tells(client, ok())
    (server,) = edge.endpoint().idle
    edge.endpoint().idle_lifetime.seconds = 7.0
    await edge.until(lambda: server.idle_seconds == 7.0)
    assert server.deadline == server.idle_since + 7.0
    edge.endpoint().idle_lifetime.seconds = 0.1
    await upstream.gets_eof()


# ---- the idle lifetime is learnt


UNKNOWN = float("inf")


def learnt(*closings: tuple[float, float]) -> float:
    """Return the lifetime learnt from these closings (time, seconds idle)."""
    kept = IdleLifetime()
    for when, idle in closings:
        kept.record_close(idle, when)
    return kept.seconds


@pytest.mark.parametrize(
    ("closings", "seconds"),
    [
        ([(10, 5.0), (20, 5.01)], UNKNOWN),
        ([(10, 5.0), (20, 5.01), (30, 5.02)], 4.0),
        ([(10, 2.0), (20, 2.9), (30, 2.4)], 1.0),
        ([(10, 0.001), (11, 0.003), (12, 0.0)], 0.0),
        ([(10, 5.0), (20, 0.3), (30, 5.0)], UNKNOWN),
        ([(10, 0.3), (20, 5.0), (30, 5.1), (40, 5.0)], 4.0),
        ([(10, 5.0), (10.1, 5.0), (10.2, 5.0), (10.3, 5.0)], UNKNOWN),
    ],
    ids=["two", "three", "one that looks seldom", "at once", "no rule", "after an exception", "all at one moment"],
)
def test_three_closings_that_agree_tell(closings: list[tuple[float, float]], seconds: float) -> None:
    assert learnt(*closings) == pytest.approx(seconds)


def test_close_of_a_young_connection_is_no_idle_timeout() -> None:
    kept = IdleLifetime()
    for when in range(10, 60, 10):
        kept.record_close(1.0, when, oldest=9.0)
    assert kept.seconds == UNKNOWN


def test_idle_lifetime_estimate_expires_and_is_learnt_again() -> None:
    kept = IdleLifetime()
    for when in (10, 20, 30):
        kept.record_close(5.0, when)
    kept.sweep(29 + FORGET_SECONDS)
    assert kept.seconds == 4.0
    kept.sweep(30 + FORGET_SECONDS)
    kept.record_close(5.0, 400)
    assert kept.seconds == UNKNOWN


def test_trusted_idle_time_follows_observed_openings_and_closings() -> None:
    kept = IdleLifetime()
    assert kept.trusted_seconds == pytest.approx(0.4), "of an endpoint of which nothing is known"
    kept.record_open(5.0)
    kept.record_open(1.0)
    assert kept.trusted_seconds == pytest.approx(4.0)
    kept.record_close(5.0, 10.0)
    assert kept.trusted_seconds == pytest.approx(4.0)
    kept.record_close(0.001, 20.0, oldest=9.0)
    assert kept.trusted_seconds < 0.001
