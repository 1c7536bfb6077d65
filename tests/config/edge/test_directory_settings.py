"""The directory's source, signer and storage, and the issuers of tokens."""

import pytest

from edgeproxy.config.directory import format_customer_lookup, parse_customer_lookup
from tests.config.conftest import LEAST

KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
HUB = "hub: redis://h\n"
HERE = "hub: redis://127.0.0.1\n"
COLLECTOR = "usage: {collector: 'http://127.0.0.1:1'}\n"
ISSUER = "issuers: {i: {issuer: x, audiences: [a], %s}}\n"


@pytest.mark.parametrize(
    "text",
    [
        HERE + "directory: {from: hub}",
        "hub: {url: 'redis+cluster://localhost,[::1]:7000'}\ndirectory: {from: hub}",
        HUB + f"directory: {{from: hub, trust: '{KEY}', max_age: 1min}}",
        HUB + f"directory: {{from: hub, trust: ['{KEY}', '{KEY}'], max_age: none, revoked: finish}}",
        COLLECTOR + f"directory: {{from: collector, trust: '{KEY}'}}",
        "cache_key: " + "ab" * 32,
        "cache_key: {file: key}",
        "cache_key: {command: [cat, key]}",
        ISSUER % "jwks: 'https://i/jwks', algorithms: [EdDSA]",
        ISSUER % "jwks: 'http://127.0.0.1:1/jwks', tier: plan",
        ISSUER % "jwks: keys.json",
    ],
)
def test_valid_setting_passes(problems, text):
    assert problems(LEAST + text + "\n") == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (HERE + "directory: {from: hub}", None),
        (HUB + f"directory: {{from: hub, trust: '{KEY}'}}", 86400.0),
        (COLLECTOR + f"directory: {{from: collector, trust: '{KEY}'}}", 86400.0),
        (COLLECTOR + f"directory: {{from: collector, trust: '{KEY}', max_age: none}}", None),
        (HUB + f"directory: {{from: hub, trust: '{KEY}', max_age: 1h}}", 3600.0),
    ],
)
def test_how_old_the_signed_time_may_be(loaded, text, seconds):
    assert loaded(text + "\n").directory.age_seconds_max == seconds


def test_a_customer_is_requested_for_as_no_key_ever_is():
    for name in ("a", "acme", "x" * 64):
        requested = format_customer_lookup(name)
        assert (len(requested) == 32, parse_customer_lookup(requested)) == (False, name)
    assert parse_customer_lookup(b"customer " + bytes(23)) is None
    assert parse_customer_lookup(bytes(33)) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("directory: {from: hub}", "directory: has no hub to be read from"),
        (f"directory: {{from: collector, trust: '{KEY}'}}", "directory: has no collector to be read from"),
        (COLLECTOR + "directory: {from: collector}", "directory: names nobody who signs it"),
        (
            HUB + "directory: {from: hub}",
            "directory: names nobody who signs it: whoever can write",
        ),
        (HUB + "directory: {from: hub, trust: []}", "directory: names nobody who signs it"),
        (HUB + "directory: {from: hub, max_age: 1h}", "directory: names nobody who signs it"),
        ("hub: 'redis+cluster://localhost,10.0.0.5'\ndirectory: {from: hub}", "directory: names nobody who signs it"),
        (HERE + "directory: {from: hub, max_age: 1h}", "directory.max_age: is the age of a signed time"),
        (HUB + f"directory: {{from: hub, trust: '{KEY}', max_age: 1s}}", "directory.max_age: "),
        (HUB + "directory: {from: hub, trust: 'ed25519:AAAA'}", "'ed25519:AAAA' is not a public key"),
        (HUB + "directory: {from: hub, trust: '11qY'}", "'11qY' is not a public key"),
        (HUB + "directory: {from: hub, trust: 'ed25519:?'}", "'ed25519:?' is not a public key"),
        ("cache_key: secret", "cache_key: is no key"),
        ("cache_key: " + "zz" * 32, "cache_key: is no key"),
        ("cache_key: {file: a, command: [b]}", "cache_key: is not one key"),
        (ISSUER % "jwks: 'http://elsewhere/jwks'", "issuers.i.jwks: 'http://elsewhere/jwks' is not where keys"),
        (ISSUER % "jwks: 'ftp://127.0.0.1/jwks'", "is not where keys can be had safely"),
        (ISSUER % "jwks: k, algorithms: [HS256]", "issuers.i.algorithms.0: 'HS256' is not known here"),
        (ISSUER % "jwks: k, algorithms: [none]", "issuers.i.algorithms.0: 'none' is not known here"),
        ("routes: [{path: /x, upstream: u, auth: [key, basic]}]", "auth: is no list of what is taken"),
        ("routes: [{path: /x, upstream: u, auth: []}]", "auth: is no list of what is taken"),
    ],
)
def test_invalid_directory_setting_names_the_fault_without_secrets(problems, text, what):
    least = LEAST if "routes" not in text else "upstreams: {u: {endpoints: ['http://a']}}\n"
    result = problems(least + text + "\n")
    assert len(result) == 1, result
    assert what in result[0]
    assert "secret" not in result[0]
