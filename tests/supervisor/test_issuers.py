"""The keys of issuers: whose they are, and for how long."""

import asyncio
from pathlib import Path

from edgeproxy.config.issuers import Issuer
from edgeproxy.messages import IssuerKeys
from edgeproxy.supervisor.issuers import Issuers
from tests.support.waiting import until

KEYS = '{"keys": []}'


def issuer(jwks: str) -> dict[str, Issuer]:
    return {"id": Issuer.model_validate({"issuer": "https://id.test", "jwks": jwks, "audiences": ["us"]})}


def test_keys_count_no_more_where_others_are_configured_and_at_once_after_a_restart(tmp_path: Path) -> None:
    told: list[dict[str, str]] = []

    def publish(message: IssuerKeys) -> None:
        told.append(message.keys)

    file = tmp_path / "jwks"
    file.write_text(KEYS)
    ours, elsewhere = issuer(str(file)), issuer(str(tmp_path / "missing"))

    async def scenario() -> None:
        issuers = Issuers(tmp_path, ours, publish)
        await issuers.begin()
        await asyncio.to_thread(until, lambda: [*tmp_path.glob("issuer-id-*.jwks")], "they are on the disk")
        await issuers.follow(elsewhere)
        assert told[-2:] == [{"id": KEYS}, {}]
        await issuers.end()
        for settings, known in ((elsewhere, {}), (ours, {"id": KEYS})):
            told.clear()
            restarted = Issuers(tmp_path, settings, publish)
            await restarted.begin()
            assert told[0] == known
            await restarted.end()

    asyncio.run(scenario())
