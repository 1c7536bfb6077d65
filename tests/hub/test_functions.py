"""The Redis functions that edges call: the users that may load them, and errors while they are missing."""

import asyncio
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.collector.directory import hub_push
from edgeproxy.config.edge.load import load_customers
from edgeproxy.hub import breaker, calls
from edgeproxy.hub.cluster import load_functions
from edgeproxy.hub.functions import LIBRARY, build_library
from edgeproxy.hub.hub import Hub
from edgeproxy.hub.redis import HOSTS_KEY, FunctionsMissingError, Link, ResponseError, Tls
from edgeproxy.hub.report import Cell, Report, Window
from loadtest.testbed.redis import SERVER, Cluster, Redis
from tests.support.fake_redis import fake
from tests.support.hub_rights import documented, documented_for_directory, documented_for_loader, documented_for_push
from tests.support.reached_hub import reached, tried, until

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

ENDLESS = b"while true do end"
OWN = build_library({"own": ENDLESS})
RUNS: tuple[tuple[bytes | str | int, ...], ...] = (
    ("SCRIPT", "LOAD", ENDLESS),
    ("SCRIPT", "FLUSH"),
    ("EVAL", ENDLESS, 0),
    ("EVAL_RO", ENDLESS, 0),
    ("EVALSHA", "0" * 40, 0),
    ("EVALSHA_RO", "0" * 40, 0),
    ("FUNCTION", "LOAD", OWN.text),
    ("FUNCTION", "LOAD", "REPLACE", LIBRARY.text.replace(b"return {", b"while true do end return {")),
    ("FUNCTION", "RESTORE", "x"),
    ("FUNCTION", "DELETE", LIBRARY.name),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "KILL"),
)
"""Commands that a thief of an edge's password may try, to block the hub or to run other code on it."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry an unreachable hub at once."""
    monkeypatch.setattr(breaker, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(breaker, "RETRY_SECONDS_MAX", 0.05)


async def with_rights(operator: Link, *more: str) -> None:
    """Create the documented user with exactly its documented rights."""
    await operator.ask("ACL", "SETUSER", "edge", "reset", "on", ">s3cret", *documented(), *more)


def report(seq: int) -> Report:
    return Report(b"k", 1, seq, 1, 2142.0, 60.0, seq, window=Window(10, 28, 1000, (Cell(1000, seq, 0),)))


def as_edge(url: str) -> str:
    return url.replace("://", "://edge:s3cret@")


def test_the_edges_user_can_call_functions_but_not_load_code(redis: Redis) -> None:
    async def play() -> None:
        operator = await Link.open(redis.url)
        await operator.load_functions()
        loaded = await operator.ask("FUNCTION", "DUMP")
        await with_rights(operator, *documented_for_directory())
        edge = await Link.open(as_edge(redis.url))
        for command in RUNS:
            with pytest.raises(ResponseError, match=r"(?i)no permissions|NOPERM"):
                await edge.ask(*command)
        async with reached(as_edge(redis.url)) as hub:
            assert (await hub.report_rate(report(1))).hosts == 1
        assert await operator.ask("FUNCTION", "DUMP") == loaded
        await edge.close()
        await operator.close()

    asyncio.run(play())


def people(folder: Path, url: str) -> Path:
    """Write an operator's file with a hub."""
    file = folder / "people.yaml"
    file.write_text(yaml.safe_dump({"hub": url, "tiers": {"t": {}}, "customers": {"acme": {"tier": "t"}}}))
    return file


def run_load(file: Path) -> Result:
    return CliRunner().invoke(cli.app, ["hub", "load", "-c", str(file)])


def test_hub_load_warns_of_a_hub_without_a_password(redis: Redis, tmp_path: Path) -> None:
    warning = f"127.0.0.1:{redis.port} answers without a password, so rights bound nobody: ACL SETUSER default off"
    file = people(tmp_path, redis.url.replace("://", "://loader:s3cret@"))

    async def play() -> None:
        operator = await Link.open(redis.url)
        await operator.ask("ACL", "SETUSER", "loader", "on", ">s3cret", *documented_for_loader())
        loaded = await asyncio.to_thread(run_load, file)
        assert (loaded.exit_code, warning in loaded.stderr) == (0, True)
        await operator.ask("ACL", "SETUSER", "default", "off")
        loaded = await asyncio.to_thread(run_load, file)
        assert (loaded.exit_code, "warning" in loaded.stderr) == (0, False)
        await operator.close()

    asyncio.run(play())


async def lacking(hub: Hub) -> None:
    """Wait until the hub counts as unavailable because its functions are missing."""
    # The first error may be a call of a missing function. The next connection attempt finds the cause.
    await until(lambda: hub.functions_missing == 1 and not hub.is_up and LIBRARY.name in (hub.why or ""))
    assert "`edgeproxy hub load`" in (hub.why or "")


def test_missing_functions_are_reported_until_they_are_loaded(redis: Redis, tmp_path: Path) -> None:
    file = people(tmp_path, redis.url)

    async def play() -> None:
        operator = await Link.open(redis.url)
        await with_rights(operator)
        async with tried(as_edge(redis.url)) as hub:
            await lacking(hub)
            loaded = await asyncio.to_thread(run_load, file)
            assert loaded.exit_code == 0
            # The hub's log uses this stream too.
            assert f"{LIBRARY.name} is loaded on 1 node\n" in loaded.stdout
            await until(lambda: hub.is_up)
            assert hub.functions_missing == 0
            assert (await asyncio.to_thread(run_load, file)).exit_code == 0, "loading again succeeds"
            await operator.ask("FUNCTION", "FLUSH")
            await lacking(hub)
            # A push of customers needs the functions too, and loads them if its user may.
            await operator.ask("ACL", "SETUSER", "push", "on", ">s3cret", *documented_for_push())
            people(tmp_path, redis.url.replace("://", "://push:s3cret@"))
            with pytest.raises(FunctionsMissingError, match="edgeproxy hub load"):
                await hub_push.push_directory(load_customers(file, {}), hub_push.PushOptions())
            await operator.ask("ACL", "SETUSER", "push", "+function|load")
            assert (await hub_push.push_directory(load_customers(file, {}), hub_push.PushOptions())).version == 1
            await until(lambda: hub.is_up)
            assert (await hub.report_rate(report(1))).hosts == 1
        refused = await asyncio.to_thread(run_load, people(tmp_path, as_edge(redis.url)))
        assert (refused.exit_code, "is loaded on" in refused.stdout) == (1, False)
        assert "this user may not load functions: ACL SETUSER USER +function|load" in refused.stderr
        await operator.close()

    asyncio.run(play())


def test_the_printed_functions_are_those_that_edges_call(redis: Redis) -> None:
    printed = CliRunner().invoke(cli.app, ["hub", "functions"])
    assert printed.stdout_bytes == LIBRARY.text

    async def play() -> None:
        operator = await Link.open(redis.url)
        await with_rights(operator)
        await operator.ask("FUNCTION", "LOAD", "REPLACE", printed.stdout_bytes)
        async with reached(as_edge(redis.url)) as hub:
            assert (await hub.report_rate(report(1))).hosts == 1
        await operator.close()

    asyncio.run(play())


def test_libraries_of_two_versions_coexist(redis: Redis) -> None:
    scripts = {name: calls.read_script(name) for name in calls.SCRIPTS}
    other = build_library(scripts, calls.read_script(calls.PREAMBLE) + b"\n-- Of another version.")

    async def play() -> None:
        operator = await Link.open(redis.url)
        for library in (other, LIBRARY):
            await operator.ask("FUNCTION", "LOAD", library.text)
        for library in (LIBRARY, other):
            answer = await operator.ask("FCALL", library.functions[calls.HEARTBEAT], 1, HOSTS_KEY, 1, 10)
            assert answer[0] == 1
        await operator.close()

    asyncio.run(play())


def test_functions_are_loaded_on_each_primary_of_a_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path) as three:
        for node in three.nodes:
            three.tell(node, "ACL", "SETUSER", "edge", "on", ">s3cret", *documented())

        async def play() -> None:
            async with tried(as_edge(three.url)) as hub:
                await until(lambda: hub.functions_missing == 3)
                assert await load_functions(three.url, Tls()) == 3
                await until(lambda: hub.is_up and hub.nodes_away == 0)
                assert hub.functions_missing == 0

        asyncio.run(play())


def test_a_redis_without_support_for_functions_is_reported() -> None:
    async def play() -> None:
        unknown = b"-ERR unknown command 'FCALL', with args beginning with: 'edgeproxy'\r\n"
        async with fake(lambda command: unknown if command[0] == b"FCALL" else None) as url, tried(url) as hub:
            await until(lambda: hub.errors > 0)
            assert hub.why == "it knows no functions: it has to be Redis 7 or later, or Valkey"

    asyncio.run(play())
