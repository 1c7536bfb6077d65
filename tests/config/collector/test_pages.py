"""Pages: `pages` of collector.yaml."""

from pathlib import Path

import pytest

from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import write

TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: admin}}]\n"
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
