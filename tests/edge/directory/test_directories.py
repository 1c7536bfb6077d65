"""Several directories as one: the owner of a key in two of them, and answers while one cannot answer."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edgeproxy.config.directory import KeyOwner
from edgeproxy.config.edge.load import load_edge
from edgeproxy.edge.directory.directories import Directories
from edgeproxy.edge.messages import DirectoryValid, KeysLookedUp, LookUpKeys
from tests.config.conftest import LEAST
from tests.support.residencies import HOME, TWO, one

KEY = bytes(32)
EU = KeyOwner("anna", '{"tier":"own"}', "{}")
MOVED = EU._replace(customer='{"tier":"own","moved":"us"}')
US = KeyOwner("anna-2", '{"tier":"own"}', "{}")

Answer = Mapping[bytes, KeyOwner | None] | None
NOBODY: Answer = {KEY: None}


async def nobody(*_: Any) -> Any:
    raise AssertionError("no hub is asked")


def create(folder: Path, text: str) -> tuple[Directories, list[Any]]:
    file = folder / "edge.yaml"
    file.write_text(f"{LEAST}state: {folder}\n{text}\n")
    published: list[Any] = []
    directories = Directories(
        load_edge(file, {}), nobody, published.append, lambda message, subject: published.append(message)
    )
    return directories, published


def look_up(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, *answers: Answer) -> tuple[KeysLookedUp, int]:
    """Look up a key with these answers of the directories. Return the reply and the number of conflicts."""
    directories, _ = create(folder, text)
    for followed, answer in zip(directories._followed, answers, strict=True):

        async def find(digests: Any, answer: Answer = answer) -> Answer:
            return answer

        monkeypatch.setattr(followed.follower, "find_owners", find)
        followed.follower._running = True
        followed.follower._record_looked()

    async def scene() -> KeysLookedUp:
        replied: asyncio.Future[KeysLookedUp] = asyncio.get_running_loop().create_future()
        task = directories._tasks.start("look keys up", directories._lookups.run())
        directories.queue_lookup(LookUpKeys([KEY]), replied.set_result)
        reply = await asyncio.wait_for(replied, 10)
        task.cancel()
        return reply

    return uvloop.run(scene()), directories._conflicts


@pytest.mark.parametrize(
    ("answers", "owner", "conflicts"),
    [
        (({KEY: EU}, NOBODY), EU, 0),
        ((NOBODY, {KEY: US}), US._replace(residency="us"), 0),
        # While one directory cannot answer, customers of the other are served.
        ((None, {KEY: US}), US._replace(residency="us"), 0),
        (({KEY: EU}, None), EU, 0),
        # The key of a moving customer belongs to the old residency until the new one has it.
        (({KEY: MOVED}, NOBODY), MOVED, 0),
        (({KEY: MOVED}, None), MOVED, 0),
        (({KEY: MOVED}, {KEY: US}), US._replace(residency="us"), 0),
        # If both residencies mark the customer as moved, the first one in the file counts.
        (({KEY: MOVED}, {KEY: US._replace(customer='{"tier":"own","moved":"eu"}')}), MOVED, 1),
        (({KEY: EU}, {KEY: US}), EU, 1),
    ],
)
def test_the_owner_of_a_key_in_two_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[Answer, Answer], owner: KeyOwner, conflicts: int
) -> None:
    reply, seen = look_up(tmp_path, monkeypatch, TWO, *answers)
    assert (reply.known, reply.unknown, reply.untold, seen) == ({KEY: owner}, [], [], conflicts)


def test_the_order_of_the_file_decides_and_not_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, _ = look_up(tmp_path, monkeypatch, f"residency: {{us: {one(1)}, eu: {HOME}}}", {KEY: US}, {KEY: EU})
    assert reply.known == {KEY: US._replace(residency="us")}


@pytest.mark.parametrize(
    ("answers", "unknown", "untold"),
    [((NOBODY, NOBODY), [KEY], []), ((NOBODY, None), [], [KEY]), ((None, None), [], [KEY])],
)
def test_a_key_is_unknown_only_if_every_directory_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: tuple[Answer, Answer],
    unknown: list[bytes],
    untold: list[bytes],
) -> None:
    reply, _ = look_up(tmp_path, monkeypatch, TWO, *answers)
    assert (reply.known, reply.unknown, reply.untold) == ({}, unknown, untold)


def test_a_residency_removed_by_a_reload_is_forgotten(tmp_path: Path) -> None:
    directories, published = create(tmp_path, TWO)
    file = tmp_path / "edge.yaml"

    async def scene() -> None:
        file.write_text(f"{LEAST}state: {tmp_path}\nresidency: {{eu: {HOME}}}\n")
        await directories.follow(load_edge(file, {}))
        assert [one.label for one in directories._followed] == [""]
        assert DirectoryValid(None, "us") in published
        assert published[-1].names is None
        await directories.end()

    uvloop.run(scene())
