"""Each setting of a secret is held to the one reader of secrets, whether a variable or a file has it."""

import base64
from pathlib import Path

import pytest

from edgeproxy.config import file_kinds
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.secret_text import InvalidSecretError, read_secret_variable

EDGE = "upstreams: {api: {endpoints: ['http://127.0.0.1:1']}}\nroutes: [{path: /*, upstream: api, auth: none}]\n"
COLLECTOR = f"listen: 127.0.0.1:1\ntokens: [{{name: admin, role: admin, sha256: '{'a' * 64}'}}]\n"
LEDGER = COLLECTOR + "database: sqlite:///ledger.db\n"
REGIONS = (
    "listen: 127.0.0.1:1\ncollector: 'https://c.example:1'\n"
    "regions: {eu: 'https://eu.example', us: 'https://us.example'}\n"
)
KEY = base64.b64encode(bytes(32)).decode()
LONG = "s" * 4096
ISSUER = "{issuer: 'https://id.example', audience: edge, roles: {claim: groups, admin: [ops]}}"


def alert(channel: str) -> str:
    return LEDGER + f"alerts: {{routes: {{page: [ops], warn: [ops], info: [ops]}}, channels: {{ops: {{{channel}}}}}}}\n"


SETTINGS = {
    "stamp_secret": (EDGE + "stamp_secret: '${SECRET}'\n", LONG),
    "usage.token": (EDGE + "usage: {collector: 'https://c.example:1', token: '${SECRET}'}\n", LONG),
    "cache_key": (EDGE + "cache_key: '${SECRET}'\n", KEY),
    "cache_key.key": (EDGE + "cache_key: {key: '${SECRET}'}\n", KEY),
    "hub": (EDGE + "hub: '${SECRET}'\n", f"rediss://me:{LONG}@h.example:1/0"),
    "proxy": (EDGE + "proxy: '${SECRET}'\n", f"http://me:{LONG}@p.example:1"),
    "database": (COLLECTOR + "database: '${SECRET}'\n", f"postgresql://me:{LONG}@d.example/ledger?sslmode=verify-full"),
    "webhooks.encryption": (LEDGER + "webhooks: {encryption: '${SECRET}'}\n", KEY),
    "residencies.us.token": (
        LEDGER + "privacy: {pseudonyms: true}\nresidency: eu\n"
        "residencies: {us: {url: 'https://u.example:1', token: '${SECRET}'}}\n",
        LONG,
    ),
    "pages.mail.password": (
        LEDGER + "pages: {mail: {server: 'm.example:1', sender: a@example.com, user: me, password: '${SECRET}'}}\n",
        LONG,
    ),
    "pages.client_secret": (
        LEDGER + f"operators: {ISSUER}\npages: {{client: edge, client_secret: '${{SECRET}}'}}\n",
        LONG,
    ),
    "alerts.channels.ops.smtp": (
        alert("smtp: '${SECRET}', from: a@example.com, to: [b@example.com]"),
        f"smtps://me:{LONG}@m.example",
    ),
    "alerts.channels.ops.slack": (alert("slack: '${SECRET}'"), f"https://hooks.slack.com/services/{LONG}"),
    "alerts.channels.ops.pagerduty": (alert("pagerduty: '${SECRET}'"), "s" * 32),
    "alerts.channels.ops.secret": (
        alert("webhook: 'https://a.example/', secret: '${SECRET}'"),
        f"whsec_{KEY}",
    ),
    "secret": (REGIONS + "secret: '${SECRET}'\n", LONG),
    "token": (REGIONS + "token: '${SECRET}'\n", LONG),
}
"""Each setting: a configuration that takes it from the variable SECRET, and a secret as long as it may be."""


def write(folder: Path, text: str, secret: bytes, way: str) -> tuple[Path, dict[str, str]]:
    """Write a configuration whose secret is in a variable or a file."""
    config, file = folder / "config.yaml", folder / "secret"
    file.write_bytes(secret)
    config.write_text(text if way == "variable" else text.replace("${SECRET}", f"${{file:{file}}}"))
    return config, {"SECRET": secret.decode(errors="surrogateescape")}


@pytest.mark.parametrize("way", ["variable", "file"])
@pytest.mark.parametrize("name", SETTINGS)
def test_secret_file_loses_one_line_end(tmp_path: Path, name: str, way: str) -> None:
    """A Secret of Kubernetes made from a file has it."""
    text, secret = SETTINGS[name]
    for end in ("", "\n", "\r\n"):
        file_kinds.check_file(*write(tmp_path, text, (secret + end).encode(), way))


@pytest.mark.parametrize("way", ["variable", "file"])
@pytest.mark.parametrize("name", SETTINGS)
def test_each_secret_setting_refuses_a_malformed_secret(tmp_path: Path, name: str, way: str) -> None:
    text, secret = SETTINGS[name]
    for form in ("{}\n\n", " {}", "{} ", "{}\u00a0", '"{}"', "'{}'", "\ufeff{}", "{}\x1b", "{}\udce9"):
        content = form.format(secret).encode(errors="surrogateescape")
        with pytest.raises(ConfigError) as error:
            file_kinds.check_file(*write(tmp_path, text, content, way))
        assert f" {name}: " in str(error.value), form
        assert secret not in str(error.value)


def test_variable_of_a_command_may_name_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hush\n")
    assert read_secret_variable("TOKEN", {}) == ""
    assert read_secret_variable("TOKEN", {"TOKEN": "hush\n"}) == "hush"
    assert read_secret_variable("TOKEN", {"TOKEN_FILE": str(file)}) == "hush"
    for environ, why in (
        ({"TOKEN": "hush", "TOKEN_FILE": str(file)}, "TOKEN and TOKEN_FILE are both set"),
        ({"TOKEN": "hush hush"}, "TOKEN has white space"),
        ({"TOKEN_FILE": str(tmp_path)}, f"{tmp_path} cannot be read: Is a directory"),
    ):
        with pytest.raises(InvalidSecretError, match=why):
            read_secret_variable("TOKEN", environ)
