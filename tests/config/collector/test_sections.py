"""Sections of collector.yaml: encryption, rotation, webhooks, and pages with their brand."""

from pathlib import Path
from struct import pack

import pytest
from pydantic import ValidationError

from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.collector.brand import (
    DARK_BESIDE,
    LIGHT_BESIDE,
    LOGO_BYTES_MAX,
    PNG,
    Brand,
    compute_contrast,
    find_brand_faults,
)
from edgeproxy.config.collector.encryption import Encryption
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.rotation import Rotation
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.tree import Table
from tests.collector.pages.test_colours import STYLE
from tests.config.conftest import write

KMS = "aws-kms:arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def test_the_master_key_is_in_a_file_or_asked_of_a_command() -> None:
    of_file = Encryption.model_validate({"file": "/etc/edgeproxy/master.key", "old": [{"command": ["vault", "key"]}]})
    assert (of_file.file, of_file.cache) == (Path("/etc/edgeproxy/master.key"), 3600.0)
    assert of_file.old[0].command == ("vault", "key")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "one of `file`, `command` and `kms`"),
        ({"file": "a", "command": ["b"]}, "one of `file`, `command` and `kms`"),
        ({"command": ["a", 1]}, "a text"),
        ({"command": ["a", "b\0c"]}, "a text"),
        ({"command": []}, "command"),
        ({"file": "a", "kms": KMS}, "one of `file`, `command` and `kms`"),
        ({"kms": KMS.removeprefix("aws-kms:")}, "aws-kms:arn"),
        ({"kms": "aws-kms:arn:aws:s3:::keys"}, "aws-kms:arn"),
        ({"kms": KMS + "\n"}, "aws-kms:arn"),
    ],
)
def test_encryption_without_a_key_is_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Encryption.model_validate(settings)


def test_a_key_of_aws_is_named_by_its_arn() -> None:
    assert Encryption.model_validate({"kms": KMS}).kms == KMS.removeprefix("aws-kms:")


# ---- `rotation`


TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: admin}}]\n"
DAY = 86400.0
GROWING = "at most 5 times that grow, such as [7d, 30d]"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("pages: {}\nrotation: {deliver: portal}", (7 * DAY, (7 * DAY, 30 * DAY))),
        ("pages: {}\nrotation: {deliver: portal, grace: 12h, remind: []}", (DAY / 2, ())),
    ],
)
def test_customers_rotate_keys_where_the_file_says_how(text: str, expected: object) -> None:
    write(Path(), {"collector.yaml": TOKENS + text})
    rotation = load_collector(Path("collector.yaml"), {}).rotation
    assert (None if rotation is None else (rotation.grace, rotation.remind)) == expected


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rotation: {deliver: portal}", "rotation.deliver: needs the portal, and there are no pages, write pages: {}"),
        (
            "listen: {address: 127.0.0.1:1, serve: [edges, api, console]}\npages: {}\nrotation: {deliver: portal}",
            "listen: serves no portal, and customers rotate their keys there, write portal in the serve of a listener",
        ),
        (
            "pages: {}\nrotation: {deliver: webhook}",
            'rotation.deliver: needs webhooks, and there are none, write webhooks: {encryption: "${WEBHOOK_KEY}"}',
        ),
        ("pages: {}\nrotation: {deliver: mail}", "rotation.deliver: 'mail' is not known here, write portal or webhook"),
        ("pages: {}\nrotation: {deliver: portal, overlap: 7d}", "rotation.overlap: has another name now, write grace"),
        ("pages: {}\nrotation: {deliver: portal, remind: 7d}", f"rotation.remind: is no list of times, {GROWING}"),
        ("pages: {}\nrotation: {deliver: portal, remind: [7d, 7d]}", f"rotation.remind: does not grow, {GROWING}"),
        (
            "pages: {}\nrotation: {deliver: portal, grace: 0s}",
            "rotation.grace: '0s' is out of range, from 1h to 90day",
        ),
    ],
)
def test_invalid_rotation_is_reported(text: str, expected: str) -> None:
    write(Path(), {"collector.yaml": TOKENS + text})
    with pytest.raises(ConfigError) as caught:
        load_collector(Path("collector.yaml"), {})
    assert [line.split(": ", 1)[1] for line in str(caught.value).splitlines()] == [expected]


@pytest.mark.parametrize(
    ("grace", "remind", "expected"),
    [
        ("7d", ["1d", "30d"], (DAY, 7 * DAY, 30 * DAY)),
        ("7d", ["7d", "30d"], (7 * DAY, 30 * DAY)),
        ("12h", [], (DAY / 2,)),
    ],
)
def test_alerts_come_at_each_reminder_and_once_at_the_grace(
    grace: str, remind: list[str], expected: tuple[float, ...]
) -> None:
    rotation = Rotation.model_validate({"deliver": "portal", "grace": grace, "remind": remind})
    assert rotation.reminders == expected


# ---- `webhooks`


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


# ---- `pages`


OPERATORS = "operators: {issuer: https://login.example.com, audience: edgeproxy, roles: {admin: [ops]}}\n"
SIGNS_UP = (
    "tiers: {{basic: {{}}}}\n"
    "pages: {{url: https://a.example, mail: {{server: 'a.example:587', sender: a@a.example}}, sign_up: {}}}\n"
)


def problems(text: str) -> list[str]:
    """Return the problems of a collector.yaml, without their lines."""
    write(Path(), {"collector.yaml": TOKENS + text})
    with pytest.raises(ConfigError) as caught:
        collector_load.load_collector(Path("collector.yaml"), {})
    return [line.split(": ", 1)[1] for line in str(caught.value).splitlines()]


@pytest.mark.usefixtures("folder")
def test_pages_setting_is_off_by_default_and_has_defaults() -> None:
    write(Path(), {"collector.yaml": TOKENS})
    assert collector_load.load_collector(Path("collector.yaml"), {}).pages is None
    write(Path(), {"collector.yaml": TOKENS + "pages: {}"})
    pages = collector_load.load_collector(Path("collector.yaml"), {}).pages
    assert pages is not None
    assert (pages.url, pages.client, pages.mail, pages.status.regions) == (None, None, None, {})
    published = (
        "pages: {status: {usage: [requests, calls]}}\nmeters: {requests: {count: requests}, calls: {count: cost}}"
    )
    write(Path(), {"collector.yaml": TOKENS + published})
    assert collector_load.load_collector(Path("collector.yaml"), {}).pages.status.usage == ("requests", "calls")
    mail = "{server: 'mail.example.com:587', sender: edge@example.com, user: edge, password: secret}"
    regions = "{eu-west: {url: https://eu.example.com/healthz, latency: 300ms}}"
    components = "{Portal: {url: https://portal.example.com/healthz}}"
    text = (
        f"pages: {{url: https://console.example.com, client: console, mail: {mail}, "
        f"status: {{regions: {regions}, components: {components}}}}}\n"
    )
    write(Path(), {"collector.yaml": TOKENS + OPERATORS + text})
    whole = collector_load.load_collector(Path("collector.yaml"), {}).pages
    assert whole is not None
    assert whole.url == "https://console.example.com:443"
    assert whole.status.regions["eu-west"].latency == 0.3
    assert list(whole.status.watched) == ["eu-west", "Portal"]
    assert "secret" not in repr(whole)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "pages: {url: http://console.example.com}",
            "pages.url: is reached in the clear, and sessions with it, write https://",
        ),
        ("pages: {client: console}", "pages.client: belongs to no issuer, write operators, or leave it out"),
        (
            OPERATORS + "pages: {}",
            "pages: says not how operators sign in, write client: the id of a client at their issuer",
        ),
        (
            "pages: {status: {subscribe: true}}",
            "pages.status.subscribe: has no mail to send by, write pages.mail",
        ),
        (
            "pages: {mail: {server: 'mail:25', sender: nobody}}",
            "pages.mail.sender: 'nobody' is not an e-mail address, one address such as edge@example.com",
        ),
        (
            "pages: {mail: {server: 'mail:25', sender: a@b.example, user: me}}",
            "pages.mail: has one of user and password, write both, or none",
        ),
        (
            "pages: {mail: {server: 'mail:25', sender: a@b.example, user: me, password: secret, tls: none}}",
            "pages.mail.tls: sends the password in the clear, write starttls or tls",
        ),
        (
            "pages: {status: {regions: {eu: {url: 'https://eu.example.com/?a'}}}}",
            "pages.status.regions.eu.url: 'https://eu.example.com/?a' has more than a host and a path, "
            "a URL such as https://eu.api.example.com/beacon",
        ),
        (
            "pages: {status: {regions: {eu: {url: 'https://eu.example.com/'}}, "
            "components: {api: {url: 'https://a.example.com/'}, eu: {url: 'https://b.example.com/'}}}}",
            "pages.status.components.eu: is a region too, choose another name",
        ),
        (
            "pages: {status: {usage: [request]}}\nmeters: {requests: {count: requests}}",
            "pages.status.usage.0: is not the name of a meter, did you mean requests?",
        ),
        (
            "pages: {status: {usage: [seats]}}\nmeters: {seats: {count: events, aggregate: max}}",
            "pages.status.usage.0: is the meter seats, which does not add up, name one that counts a sum",
        ),
        (
            "pages: {sign_up: {tier: basic}}",
            "pages.sign_up: has nothing that proves an address, write pages.mail or pages.customers",
        ),
        (
            SIGNS_UP.format("{tier: basik}"),
            "pages.sign_up.tier: basik is not the name of a tier, did you mean basic?",
        ),
        (
            SIGNS_UP.format("{tier: basic, plan: free}"),
            "pages.sign_up.plan: is of no plans, write billing.plans, or leave it out",
        ),
        (
            "pages: {brand: {light: '#0b6b5c'}}",
            "pages.brand: has one of light and dark, write both, or none",
        ),
        (
            "pages: yes",
            "pages: is not a mapping, its fields are api, brand, client, client_secret, customers, mail, sign_up, "
            "status, url",
        ),
    ],
)
def test_contradicting_page_settings_are_reported(text: str, expected: str) -> None:
    assert problems(text) == [expected]


# ---- the brand of pages


def test_background_colours_equal_those_of_the_style_sheet() -> None:
    for name, light, dark in zip(("card", "bg", "hover", "sunk"), LIGHT_BESIDE, (1, 0, 2, 3), strict=True):
        assert f"--{name}: light-dark({light}, {DARK_BESIDE[dark]})" in STYLE
    assert f"--on-accent: light-dark(#ffffff, {DARK_BESIDE[4]})" in STYLE
    assert round(compute_contrast("#ffffff", "#767676"), 2) == 4.54, "the example of WCAG's understanding documents"


@pytest.mark.parametrize(
    ("brand", "why"),
    [
        ({"light": "#0b6b5c", "dark": "#7fe0cf"}, []),
        ({"light": "#0b6b5c"}, ["has one of light and dark"]),
        ({"light": "#777777", "dark": "#7fe0cf"}, ["has a contrast of 3.99:1 where 4.5:1 is needed"]),
        ({"light": "#0b6b5c", "dark": "#2f4fd0"}, ["has a contrast of 2.42:1 where 4.5:1 is needed"]),
    ],
)
def test_colours_belong_together_and_can_be_read(brand: dict[str, str], why: list[str]) -> None:
    assert [fault.what for fault in find_brand_faults(Table(brand))] == why


@pytest.mark.parametrize("colour", ["red", "#fff", "#0b6b5c;}", "url(//evil.test)", "#0b6b5g"])
def test_a_colour_cannot_be_anything_else(colour: str) -> None:
    with pytest.raises(ValidationError, match="is not a colour"):
        Brand.model_validate({"light": colour, "dark": "#7fe0cf"})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "is no PNG"),
        (PNG + pack(">I", 1), "is no PNG"),
        (PNG + pack(">II", 1025, 1), "has 1025 × 1 pixels"),
        (PNG + pack(">II", 64, 64) + b"x" * LOGO_BYTES_MAX, "has more than"),
    ],
)
def test_a_file_that_is_no_logo_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "logo.png"
    file.write_bytes(content)
    with pytest.raises(ValidationError, match=why):
        Brand.model_validate({"logo": str(file)})


def test_a_logo_is_the_file_that_was_named(tmp_path: Path) -> None:
    file = tmp_path / "logo.png"
    file.write_bytes(PNG + pack(">II", 64, 64))
    assert Brand.model_validate({"logo": str(file)}).logo == file
