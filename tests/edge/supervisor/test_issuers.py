"""The keys of issuers: whose they are, and for how long."""

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from edgeproxy.config.edge.issuers import Issuer
from edgeproxy.edge.messages import IssuerKeys
from edgeproxy.edge.supervisor import issuers as issuers_module
from edgeproxy.edge.supervisor.issuers import IssuerKeyFetcher
from loadtest.testbed.waiting import until

KEY = '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
KEYS = f'{{"keys":[{KEY}]}}'
OTHER_KEYS = f'{{"keys":[{KEY}],"of":"another day"}}'


def issuer(jwks: str) -> dict[str, Issuer]:
    return {"id": Issuer.model_validate({"issuer": "https://id.test", "jwks": jwks, "audiences": ["us"]})}


def test_stored_issuer_keys_apply_after_a_restart_only_to_their_issuer(tmp_path: Path) -> None:
    told: list[dict[str, str]] = []

    def publish(message: IssuerKeys) -> None:
        told.append(message.keys)

    file = tmp_path / "jwks"
    file.write_text(KEYS)
    ours, elsewhere = issuer(str(file)), issuer(str(tmp_path / "missing"))

    async def scenario() -> None:
        issuers = IssuerKeyFetcher(tmp_path, ours, publish)
        await issuers.begin()
        await asyncio.to_thread(until, lambda: [*tmp_path.glob("issuer-id-*.jwks")], "they are on the disk")
        await issuers.follow(elsewhere)
        assert told[-2:] == [{"id": KEYS}, {}]
        await issuers.end()
        for settings, known in ((elsewhere, {}), (ours, {"id": KEYS})):
            told.clear()
            restarted = IssuerKeyFetcher(tmp_path, settings, publish)
            await restarted.begin()
            assert told[0] == known
            await restarted.end()

    asyncio.run(scenario())


def test_missing_key_fetches_early_at_most_once_per_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[float] = []

    async def fetch(_: str) -> str:
        fetched.append(time.monotonic())
        return KEYS

    monkeypatch.setattr(issuers_module, "_fetch_jwks", fetch)
    monkeypatch.setattr(issuers_module, "HURRY_SECONDS", 0.2)

    async def scenario() -> None:
        issuers = IssuerKeyFetcher(tmp_path, issuer("https://id.test/keys"), lambda _: None)
        await issuers.begin()
        while len(fetched) < 4:
            issuers.hurry("id")
            issuers.hurry("another")
            await asyncio.sleep(0.01)
        await issuers.end()

    asyncio.run(asyncio.wait_for(scenario(), 40))
    assert all(later - earlier >= 0.19 for earlier, later in itertools.pairwise(fetched))


def test_issuer_keys_apply_despite_a_full_disk_and_are_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers_module, "FETCH_SECONDS", 0.01)
    told: list[dict[str, str]] = []
    file, state = tmp_path / "jwks", tmp_path / "state"
    file.write_text(KEYS)

    async def scenario() -> None:
        issuers = IssuerKeyFetcher(state, issuer(str(file)), lambda message: told.append(message.keys))
        await issuers.begin()
        await asyncio.to_thread(until, lambda: told[-1] == {"id": KEYS}, "the keys count")
        file.write_text(OTHER_KEYS)
        await asyncio.to_thread(until, lambda: told[-1] == {"id": OTHER_KEYS}, "others are still fetched")
        state.mkdir()
        await asyncio.to_thread(until, lambda: [*state.glob("issuer-id-*.jwks")], "they are on the disk")
        assert next(state.glob("issuer-id-*.jwks")).read_text() == OTHER_KEYS
        await issuers.end()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer", ['{"keys":[]}', '{"keys":[{"kty":"oct","k":"AA"}]}', '{"error":"busy"}', "[]", "<html>", "x" * (2 << 20)]
)
def test_known_keys_outlive_an_answer_without_a_usable_key_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(issuers_module, "FETCH_SECONDS", 0.01)
    published: list[dict[str, str]] = []
    file = tmp_path / "jwks"
    file.write_text(KEYS)
    fetch, fetches = issuers_module._fetch_jwks, [0]

    async def fetch_counted(where: str) -> str:
        fetches[0] += 1
        return await fetch(where)

    monkeypatch.setattr(issuers_module, "_fetch_jwks", fetch_counted)

    async def scenario() -> None:
        def create_fetcher() -> IssuerKeyFetcher:
            return IssuerKeyFetcher(tmp_path, issuer(str(file)), lambda message: published.append(message.keys))

        issuers = create_fetcher()
        await issuers.begin()
        await asyncio.to_thread(until, lambda: [*tmp_path.glob("issuer-id-*.jwks")], "the keys are stored")
        await issuers.end()
        file.write_text(answer)
        (stored,) = (tmp_path / name for name in os.listdir(tmp_path) if name.startswith("issuer-id-"))
        for age, remaining in ((80_000, {"id": KEYS}), (90_000, {})):
            os.utime(stored, (time.time() - age,) * 2)
            published.clear()
            issuers = create_fetcher()
            await issuers.begin()
            ((_, labels, (seconds,)),) = issuers.series()
            assert labels == ("id",)
            assert age <= seconds <= age + 60
            if remaining:
                fetches[0] = 0
                await asyncio.to_thread(until, lambda: fetches[0] > 2, "the answer is read again")
            else:
                await asyncio.to_thread(until, lambda: published[-1] == {}, "the keys are forgotten")
            await issuers.end()
            assert published[-1] == remaining
        assert stored.name not in os.listdir(tmp_path), "nor does the next start know them"

    asyncio.run(scenario())
