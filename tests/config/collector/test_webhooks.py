"""Customers' webhooks: `webhooks` of collector.yaml."""

from pathlib import Path

import pytest

from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import write

TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: admin}}]\n"
KEY, OLD_KEY = "A" * 43 + "=", "B" * 42 + "A="
EXPECTED = (
    "write 32 bytes in Base64, as `openssl rand -base64 32` makes them, best from the environment: ${WEBHOOK_KEY}"
)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("text", "keys"), [(f'"{KEY}"', (KEY,)), (f'["{KEY}", "{OLD_KEY}"]', (KEY, OLD_KEY))])
def test_secrets_are_encrypted_with_one_key_or_the_first_of_several(text: str, keys: tuple[str, ...]) -> None:
    write(Path(), {"collector.yaml": f"{TOKENS}webhooks: {{encryption: {text}}}"})
    webhooks = load_collector(Path("collector.yaml"), {}).webhooks
    assert webhooks is not None
    assert webhooks.encryption == keys
    assert KEY not in repr(webhooks)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("text", ["c2hvcnQtc2VjcmV0", "no base64 at all, which is a secret"])
def test_invalid_webhook_key_is_refused_and_not_shown(text: str) -> None:
    write(Path(), {"collector.yaml": f'{TOKENS}webhooks: {{encryption: "{text}"}}'})
    with pytest.raises(ConfigError) as refused:
        load_collector(Path("collector.yaml"), {})
    (problem,) = refused.value.problems
    assert EXPECTED in str(problem)
    assert text not in str(problem)
