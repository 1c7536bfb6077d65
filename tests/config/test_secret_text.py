"""Secrets in variables and files: one reader removes one line end and refuses invalid secrets."""

import base64
from pathlib import Path

import pytest

from edgeproxy.config import file_kinds
from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.environment import UnresolvedVariableError, resolve_variables
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.secret_text import (
    SECRET_BYTES_MAX,
    InvalidSecretError,
    parse_secret,
    read_secret_file,
    read_secret_variable,
)
from edgeproxy.config.source import Source, TextSource

MARK = "hush-72d1"
REFUSED = {
    "has white space": [
        f"{MARK}\n\n",
        f" {MARK}",
        f"{MARK} ",
        f"{MARK}\t",
        f"a\n{MARK}\n",
        f"{MARK}\u00a0",
        f"{MARK}\u2028",
    ],
    "begins or ends with a quote": [f'"{MARK}"', f"'{MARK}'\n", f"`{MARK}", f'{MARK}"'],
    "is not UTF-8": [f"{MARK}\xe9".encode("latin-1"), b"\xff\xfe" + MARK.encode("utf-16-le")],
    "has a character that cannot be printed": [f"{MARK}\0", f"\ufeff{MARK}", f"{MARK}\x1b[0m"],
}
CASES = [(content, why) for why, contents in REFUSED.items() for content in contents]


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (MARK, MARK),
        (f"{MARK}\n", MARK),
        (f"{MARK}\r\n", MARK),
        ("x", "x"),
        ("s" * 4096 + "\n", "s" * 4096),
        ("pässwörd\n", "pässwörd"),
        ("a\"b'c\n", "a\"b'c"),
        ("#;&$(){}[]|<>*?~!%^=+,.:@/\\-_\n", "#;&$(){}[]|<>*?~!%^=+,.:@/\\-_"),
    ],
)
def test_secret_is_read_without_its_line_end(tmp_path: Path, content: str, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    assert parse_secret(content) == read_secret_file(file) == secret
    assert resolve_variables(f"Bearer ${{file:{file}}}", {}) == f"Bearer {secret}"


@pytest.mark.parametrize(("content", "why"), CASES)
def test_invalid_secret_is_refused_with_the_reason(tmp_path: Path, content: str | bytes, why: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidSecretError, match=why) as raised:
        parse_secret(content)
    assert MARK not in str(raised.value)
    with pytest.raises(UnresolvedVariableError, match=f"{file} {why}") as named:
        resolve_variables(f"${{file:{file}}}", {})
    assert MARK not in f"{named.value}{named.value.hint}"


@pytest.mark.parametrize("state", ["missing", "empty", "a directory", "too large"])
def test_file_without_a_secret_is_named(tmp_path: Path, state: str) -> None:
    file = tmp_path / "secret"
    if state == "a directory":
        file.mkdir()
    elif state != "missing":
        file.write_bytes(b"s" * (SECRET_BYTES_MAX + 1) if state == "too large" else b"\n")
    with pytest.raises(InvalidSecretError, match=str(file)):
        read_secret_file(file)


def test_error_names_the_setting_and_not_the_secret(tmp_path: Path) -> None:
    file, config = tmp_path / "secret", tmp_path / "edge.yaml"
    file.write_text(f'"{MARK}"\n')
    config.write_text(f"listen: 127.0.0.1:8080\nstamp_secret: '${{file:{file}}}'\n")
    with pytest.raises(ConfigError) as raised:
        load_edge(config, {})
    assert "edge.yaml:2: stamp_secret: names a file that has no secret" in str(raised.value)
    assert MARK not in str(raised.value)


def test_secret_of_a_variable_is_held_to_the_same(tmp_path: Path) -> None:
    config = tmp_path / "edge.yaml"
    config.write_text("stamp_secret: ${STAMP_SECRET}\n")
    for content in (f'"{MARK}"', f"{MARK} {MARK}", f"{MARK}\n\n"):
        with pytest.raises(ConfigError, match=r"stamp_secret: (has white space|begins or ends with a quote)") as raised:
            load_edge(config, {"STAMP_SECRET": content})
        assert MARK not in str(raised.value)


def test_file_is_read_again_with_each_load_and_is_watched(tmp_path: Path) -> None:
    """A mounted Secret is replaced while the process runs."""
    secret, config = tmp_path / "secret", tmp_path / "edge.yaml"
    config.write_text(f"stamp_secret: '${{file:{secret}}}'\n")
    for content in ("first", "second"):
        secret.write_text(content)
        source = Source(config, {})
        assert source.tree["stamp_secret"] == content
        assert str(secret) in source.signs


def test_text_that_somebody_sends_reads_no_file(tmp_path: Path) -> None:
    """Plans come over HTTP, too."""
    secret = tmp_path / "secret"
    secret.write_text(MARK)
    source = TextSource("plans.yaml", f"plans: '${{file:{secret}}}'\n")
    assert MARK not in f"{source.tree} {source.problems}"
    assert source.problems


# ---- each setting of a secret is held to the one reader


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
