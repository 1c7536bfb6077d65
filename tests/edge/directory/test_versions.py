"""The directory in a real Redis: the data of pushes, interrupted or not, and its reading."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import Result
from redis.exceptions import ResponseError
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.directory import hub_push
from edgeproxy.collector.directory.hub_push import PushOptions, PushRejectedError, PushResult, push_lines
from edgeproxy.config.edge.load import load_customers
from edgeproxy.hub import calls
from edgeproxy.hub.cluster import open_link
from edgeproxy.hub.functions import LIBRARY, format_call
from edgeproxy.hub.redis import Link, Tls
from edgeproxy.wire import directory_versions
from edgeproxy.wire.directory_versions import (
    LINES_MAX,
    LOG,
    TIME,
    UnreadableDirectoryError,
    Version,
    format_version,
    parse_version,
    parts_key,
)
from loadtest.testbed.redis import SERVER, Cluster, Redis
from tests.support.directory import told

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def lines(**tiers: str) -> dict[str, bytes]:
    """Return the lines of customers with these tiers and one key each."""
    return {
        name: orjson.dumps({"customer": {"tier": tier}, "keys": {key(name): {}}, "name": name})
        for name, tier in tiers.items()
    }


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Yield the commands of an empty hub."""
    link = await Link.open(f"redis://127.0.0.1:{port}/0")
    try:
        await link.ask("FLUSHALL")
        await link.load_functions()
        yield link.ask
    finally:
        await link.close()


def played(port: int, scene: Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asking(port) as ask:
            await scene(ask)

    asyncio.run(play())


def test_a_push_sends_only_changes(redis_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "PART_BYTES", 1000)

    async def scene(ask: directory_versions.CallHub) -> None:
        many = {f"c{n}": "x" for n in range(200)}
        await push_lines(ask, lines(**many))
        first = await directory_versions.fetch_last_version(ask)
        assert first is not None
        assert first.parts > 10
        assert await told(ask) == many
        await push_lines(ask, lines(**many | {"c7": "y"}))
        second = await directory_versions.fetch_last_version(ask)
        assert second is not None
        assert (second.whole, second.parts) == (False, 1)
        assert second.size < 200
        assert await push_lines(ask, lines(**many | {"c7": "y"})) == PushResult([], [], [], 200, 200, 2, idle=True)
        assert await directory_versions.fetch_last_version(ask) == second

    played(redis_port, scene)


def test_the_data_to_read_stays_bounded_after_many_pushes(redis_port: int) -> None:
    """After many pushes, a new reader reads little. A reader that began earlier can finish."""

    async def scene(ask: directory_versions.CallHub) -> None:
        tiers = {f"c{n}": "0" for n in range(20)}
        seen: list[Version] = []
        for number in range(1, 40):
            tiers[f"c{number % 20}"] = str(number)
            await push_lines(ask, lines(**tiers))
            there = await directory_versions.fetch_versions(ask)
            assert there[0].whole
            assert not any(version.whole for version in there[1:])
            assert sum(version.size for version in there[1:]) <= there[0].size
            assert await told(ask) == tiers
            seen += [version for version in there if version not in seen]
        left = [version for version in seen if version not in there]
        assert left
        for version in seen:
            ttl = await ask("TTL", parts_key(version.token))
            assert 0 < ttl <= hub_push.READABLE_SECONDS if version in left else ttl == -1

    played(redis_port, scene)


def test_the_log_is_bounded(redis_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_push, "VERSIONS_KEPT", 3)

    async def scene(ask: directory_versions.CallHub) -> None:
        many = {f"c{n}": "0" for n in range(50)}
        lengths = []
        for number in range(7):
            await push_lines(ask, lines(**many | {"c1": str(number)}))
            lengths.append(len(await directory_versions.fetch_versions(ask)))
        assert lengths == [1, 2, 3, 1, 2, 3, 1]

    played(redis_port, scene)


def test_the_hub_bounds_the_lines_of_a_log(redis_port: int) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        await ask("RPUSH", LOG, *[b"line"] * (LINES_MAX - 1))
        for number, answer in ((LINES_MAX, 1), (LINES_MAX + 1, None)):
            token = f"t{number}"
            await ask("RPUSH", parts_key(token), b"part")
            arguments = (await ask("LINDEX", LOG, -1), token, 1, 600, "", b"channel", 0)
            call = format_call(calls.COMMIT, [LOG, TIME, parts_key(token)], arguments)
            if answer is None:
                with pytest.raises(ResponseError, match="LISTFULL"):
                    await ask(*call)
            else:
                assert await ask(*call) == answer

    played(redis_port, scene)


def test_second_of_two_concurrent_pushes_is_rejected(redis_port: int) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        await push_lines(ask, lines(a="0", b="0"))
        for turn in range(10):
            expected = [lines(a=f"one{turn}", b=f"one{turn}"), lines(a=f"other{turn}", b=f"other{turn}")]
            came = await asyncio.gather(*[push_lines(ask, each) for each in expected], return_exceptions=True)
            lost = [each for each in came if isinstance(each, PushRejectedError)]
            assert len(lost) == 1, came
            assert "somebody else has pushed meanwhile" in str(lost[0])
            won = "other" if came[0] is lost[0] else "one"
            assert await told(ask) == {"a": f"{won}{turn}", "b": f"{won}{turn}"}

    played(redis_port, scene)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({}, "3 of 3 customers would be gone; if that is meant, say --force"),
        ({"a": "x"}, "2 of 3 customers would be gone; if that is meant, say --force"),
        ({"d": "x", "e": "x", "f": "x"}, "3 of 3 customers would be gone; if that is meant, say --force"),
    ],
)
def test_a_push_that_removes_most_customers_is_refused(redis_port: int, wanted: dict[str, str], why: str) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        await push_lines(ask, lines(a="x", b="x", c="x"))
        would = await push_lines(ask, lines(**wanted), PushOptions(dry=True))
        assert (would.refused, would.removed) == (why, [name for name in "abc" if name not in wanted])
        with pytest.raises(PushRejectedError) as refused:
            await push_lines(ask, lines(**wanted))
        assert str(refused.value) == why
        assert len(await told(ask)) == 3
        await push_lines(ask, lines(**wanted), PushOptions(force=True))
        assert await told(ask) == wanted
        await push_lines(ask, lines(g="x", **wanted))
        assert await told(ask) == {"g": "x", **wanted}

    played(redis_port, scene)


def test_pushed_key_survives_its_move_to_another_customer(redis_port: int) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        await push_lines(ask, lines(a="x", b="x"))
        keys: dict[str, dict[str, str]] = {key("a"): {}, key("b"): {}}
        both = orjson.dumps({"customer": {"tier": "x"}, "keys": keys, "name": "c"})
        keyless = {name: orjson.dumps({"customer": {"tier": "x"}, "keys": {}, "name": name}) for name in "ab"}
        done = await push_lines(ask, {**keyless, "c": both})
        assert (done.added, done.changed, done.keys) == (["c"], ["a", "b"], 2)

    played(redis_port, scene)


def test_a_dry_run_changes_nothing(redis_port: int) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        assert (await push_lines(ask, lines(a="x"), PushOptions(dry=True))).added == ["a"]
        assert await ask("KEYS", "*") == []

    played(redis_port, scene)


def test_a_push_to_a_hub_with_a_lost_part_replaces_all_parts(redis_port: int) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        await push_lines(ask, lines(a="x", b="x"))
        version = await directory_versions.fetch_last_version(ask)
        assert version is not None
        await ask("DEL", parts_key(version.token))
        with pytest.raises(UnreadableDirectoryError, match="has left the hub, or lost a part"):
            await told(ask)
        with pytest.raises(PushRejectedError, match="2 of 2 customers would be gone"):
            await push_lines(ask, {})
        assert (await push_lines(ask, lines(a="x", b="x"))).version == 2
        assert await told(ask) == {"a": "x", "b": "x"}

    played(redis_port, scene)


def test_altered_parts_are_rejected(redis_port: int) -> None:
    async def scene(ask: directory_versions.CallHub) -> None:
        await push_lines(ask, lines(a="x"))
        version = await directory_versions.fetch_last_version(ask)
        assert version is not None
        await ask("LSET", parts_key(version.token), 0, lines(a="y")["a"])
        with pytest.raises(UnreadableDirectoryError, match="not what was pushed"):
            await told(ask)
        for garbage in (b"garbage", b"5", b'{"name":[]}'):
            await ask("LSET", parts_key(version.token), 0, garbage)
            assert (await push_lines(ask, lines(a="x"), PushOptions(dry=True))).added == ["a"]
        assert (await push_lines(ask, lines(a="x"))).version == 2
        assert await told(ask) == {"a": "x"}

    played(redis_port, scene)


@pytest.mark.parametrize("garbage", [b"garbage", b"5", b'{"name":[]}', b'{"customer":{}}'])
def test_unreadable_lines_are_replaced_by_a_push(redis_port: int, garbage: bytes) -> None:
    """This holds even if the digest of the lines is right."""

    async def scene(ask: directory_versions.CallHub) -> None:
        await ask("RPUSH", parts_key("t"), garbage)
        odd = Version(4, "t", True, 1, len(garbage), hashlib.sha256(garbage).hexdigest(), 1, 1, 1.5)
        await ask("RPUSH", LOG, format_version(odd))
        assert (await push_lines(ask, lines(a="x"))).version == 5
        assert await told(ask) == {"a": "x"}

    played(redis_port, scene)


def test_a_log_of_a_later_format_is_not_changed(redis_port: int) -> None:
    version = Version(1, "t", True, 0, 0, hashlib.sha256().hexdigest(), 0, 0, 1.5)
    assert parse_version(format_version(version)) == version
    odd = [orjson.dumps(version._asdict() | {field: None}) for field in Version._fields]
    for line in (
        format_version(version._replace(form=3)),
        b"{}",
        b"?",
        b"[]",
        format_version(version)[:-1] + b',"more":1}',
        *odd,
    ):
        with pytest.raises(UnreadableDirectoryError):
            parse_version(line)

    async def scene(ask: directory_versions.CallHub) -> None:
        await ask("RPUSH", LOG, format_version(version._replace(form=3)))
        with pytest.raises(UnreadableDirectoryError, match="later version"):
            await push_lines(ask, lines(a="x"))

    played(redis_port, scene)


def test_data_of_an_interrupted_push_expires(redis_port: int) -> None:
    class Cut(Exception):
        pass

    async def scene(ask: directory_versions.CallHub) -> None:
        async def until_commit(*command: Any) -> Any:
            if LIBRARY.functions[calls.COMMIT] in command:
                raise Cut
            return await ask(*command)

        with pytest.raises(Cut):
            await push_lines(until_commit, lines(a="x"))
        (left,) = await ask("KEYS", "*")
        assert 0 < await ask("TTL", left) <= hub_push.STAGED_SECONDS
        assert await directory_versions.fetch_last_version(ask) is None

        async def lost(*command: Any) -> Any:
            if LIBRARY.functions[calls.COMMIT] in command:
                await ask("FLUSHALL")
            return await ask(*command)

        with pytest.raises(PushRejectedError, match="has lost what was sent"):
            await push_lines(lost, lines(a="x"))

    played(redis_port, scene)


# ---- the command


def run_push(file: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.app, ["directory", "push", "-c", str(file), *options])


def people(url: str, tier: str, many: int = 3) -> str:
    names = [f"c{n}" for n in range(many)]
    said = {
        "hub": url,
        "tiers": {tier: {}},
        "customers": {name: {"tier": tier} for name in names},
        "keys": [{"sha256": key(name), "customer": name} for name in names],
    }
    return yaml.safe_dump(said)


def test_the_push_command_prints_its_changes(redis_port: int, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{redis_port}/7"
    file = tmp_path / "people.yaml"
    file.write_text(people(url, "x"))
    first = run_push(file)
    assert (first.exit_code, first.stderr) == (0, "")
    counts = "3 added, 0 changed, 0 removed; version 1: 3 customers, 3 keys"
    assert first.stdout.splitlines() == ["+ c0", "+ c1", "+ c2", f"pushed: {counts}"]
    assert run_push(file).stdout == "nothing to do: version 1: 3 customers, 3 keys\n"
    file.write_text(people(url, "y", 1))
    refused = run_push(file)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"{url}: 2 of 3 customers would be gone; if that is meant, say --force\n"
    would = run_push(file, "--dry-run", "--force")
    counts = "0 added, 1 changed, 2 removed; version 2: 1 customer, 1 key"
    assert would.stdout.splitlines() == ["~ c0", "- c1", "- c2", f"would push: {counts}"]
    assert (would.exit_code, would.stderr) == (0, "")
    unforced = run_push(file, "--dry-run")
    assert (unforced.exit_code, unforced.stdout) == (1, would.stdout)
    assert unforced.stderr == refused.stderr.replace(f"{url}:", f"{url}: it would be refused:")
    assert (
        run_push(file, "--force").stdout.splitlines()[3].startswith("pushed: 0 added, 1 changed, 2 removed; version 2")
    )


def test_push_reports_problems_of_a_file_as_check_does(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text("hub: redis://h\ntiers: {t: {}}\ncustomers: {c: {tier: tt}}\nkeys: [{sha256: aa, customer: d}]\n")
    came = run_push(file)
    assert (came.exit_code, came.stdout) == (2, "")
    assert [line.removeprefix(f"{file}:") for line in came.stderr.splitlines()] == [
        "3: customers.c.tier: there is no tier tt, did you mean t?",
        "4: keys.0.customer: there is no customer d, known here: c",
        "4: keys.0.sha256: has 2 characters that are not a SHA-256, "
        "64 hex digits, the SHA-256 of a key: `edgeproxy key add` prints it",
    ]
    file.write_text("tiers: {t: {}}\ncustomers: {c: {tier: t}}\n")
    came = run_push(file)
    assert (came.exit_code, came.stderr) == (2, f"{file} has no hub to push to: write hub: redis://HOST:PORT\n")


def test_an_unsigned_push_to_another_host_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(people("redis://192.0.2.1", "x"))
    came = run_push(file)
    assert (came.exit_code, came.stdout) == (1, "")
    assert came.stderr.endswith("edges refuse what is not signed, but from a hub of their own host: say --key FILE\n")


def test_the_error_of_an_unreachable_hub_hides_its_password(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(people("redis://me:s3cret@127.0.0.1:1/0", "x"))
    came = run_push(file)
    assert came.exit_code == 1
    assert came.stderr.startswith("the hub redis://me@127.0.0.1:1/0 is away: ")
    assert "s3cret" not in came.stderr


def test_a_push_sends_no_secret(redis_port: int, tmp_path: Path) -> None:
    secret = secrets.token_hex(8)
    file = tmp_path / "people.yaml"
    said = yaml.safe_load(people(f"redis://127.0.0.1:{redis_port}/0", "x"))
    said |= {"stamp_secret": secret, "usage": {"collector": "http://127.0.0.1:1", "token": secret}}
    file.write_text(yaml.safe_dump(said))

    async def scene(ask: directory_versions.CallHub) -> None:
        assert (await asyncio.to_thread(run_push, file)).exit_code == 0
        version = await directory_versions.fetch_last_version(ask)
        assert version is not None
        (part,) = await ask("LRANGE", parts_key(version.token), 0, -1)
        assert key("c0").encode() in part
        assert secret.encode() not in part + format_version(version)

    played(redis_port, scene)


def test_a_full_redis_refuses_a_push_and_keeps_its_data(redis: Redis, tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(people(redis.url, "x"))

    async def scene(ask: directory_versions.CallHub) -> None:
        assert (await asyncio.to_thread(run_push, file)).exit_code == 0
        await ask("CONFIG", "SET", "maxmemory", "1")
        file.write_text(people(redis.url, "y"))
        came = await asyncio.to_thread(run_push, file)
        assert came.exit_code == 1
        assert "the hub refuses: " in came.stderr
        assert set((await told(ask)).values()) == {"x"}

    played(redis.port, scene)


def test_cluster_stores_the_directory_on_one_node(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"

    async def there(url: str) -> dict[str, str]:
        link = await open_link(LOG, url, Tls())
        try:
            return await told(link.ask)
        finally:
            await link.close()

    with Cluster(tmp_path) as cluster:
        for number, tier in enumerate("xyz", 1):
            file.write_text(people(cluster.url, tier, 20))
            assert hub_push.run_push(load_customers(file, {})).version == number
            assert set(asyncio.run(there(cluster.url)).values()) == {tier}
        for node in cluster.nodes:
            file.write_text(people(node.url, tier, 20))
            came = run_push(file)
            if came.exit_code == 0:
                assert came.stdout == "nothing to do: version 3: 20 customers, 20 keys\n"
            else:
                why = "it is a Redis Cluster: write redis+cluster:// as the hub's URL, or push again"
                assert (came.exit_code, came.stdout, came.stderr) == (1, "", f"{node.url}: {why}\n")
