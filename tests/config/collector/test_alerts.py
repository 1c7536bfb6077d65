"""`alerts` of collector.yaml."""

from pathlib import Path

import pytest

from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.collector.alerts import (
    A_FOLDER,
    A_ROUTING_KEY,
    A_SECRET,
    A_WEBHOOK,
    AN_ADDRESS,
    AN_SMTP,
    Alerts,
    MailServer,
    parse_mail_server,
)
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import write

TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: edge}}]\n"
SECRET = "whsec_" + "A" * 32
OPS = f"{{webhook: https://ops.test/in, secret: {SECRET}}}"
MAIL = "{smtp: 'smtps://me:p%40ss@mail.test', from: alerts@example.com, to: ops@example.com}"
THRESHOLDS = "at most 10 whole percentages that grow, such as [80, 100, 120]"


def alerts(folder: Path, text: str) -> Alerts:
    write(folder, {"collector.yaml": f"{TOKENS}alerts: {text}\n"})
    return collector_load.load_collector(Path("collector.yaml"), {}).alerts


def test_by_default_the_log_says_them(folder: Path) -> None:
    result = alerts(folder, "{}")
    assert result == Alerts()
    assert (result.channels, result.thresholds, result.escalate) == ({}, (80, 100, 120), 900.0)


def test_alert_channels_and_routes_load(folder: Path) -> None:
    slack, pager = "{slack: https://hooks.test/x}", f"{{pagerduty: {'k' * 32}, url: https://eu.test/v2, private: yes}}"
    local = f"{{webhook: 'http://127.0.0.1:8080/in', secret: [{SECRET}, {SECRET}]}}"
    channels = f"{{ops: {OPS}, mail: {MAIL}, chat: {slack}, pager: {pager}, local: {local}}}"
    more = "routes: {page: [pager, ops], info: [chat]}, customers: mail, thresholds: [50, 90], escalate: 5min"
    more += ", runbooks: https://git.test/docs/"
    result = alerts(folder, f"{{channels: {channels}, {more}}}")
    kinds = {name: channel.kind for name, channel in result.channels.items()}
    assert kinds == {"ops": "webhook", "mail": "smtp", "chat": "slack", "pager": "pagerduty", "local": "webhook"}
    assert (result.routes.page, result.routes.warn, result.thresholds) == (("pager", "ops"), (), (50, 90))
    assert result.channels["mail"].to == ("ops@example.com",)
    assert [len(channel.secret) for channel in result.channels.values()] == [1, 0, 0, 0, 2]
    assert result.runbooks == "https://git.test/docs/"
    shown = repr(result)
    assert not any(secret in shown for secret in (SECRET, "p%40ss", "hooks.test", "k" * 32, "ops.test"))


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtps://me:p%40ss@mail.test", MailServer("mail.test", 465, True, "me", "p@ss")),
        ("smtp://mail.test:25/", MailServer("mail.test", 25, False, None, None)),
        ("smtp://[::1]", MailServer("::1", 587, False, None, None)),
    ],
)
def test_mail_url_gives_server_port_and_tls(url: str, server: MailServer) -> None:
    assert parse_mail_server(url) == server


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{channels: {a: {}}}", "channels.a: has no way out, write one of webhook, slack, pagerduty, "),
        (
            f"{{channels: {{a: {{webhook: https://a.test, slack: https://a.test, secret: {SECRET}}}}}}}",
            "channels.a: has webhook and slack, write one of webhook, slack, pagerduty, alertmanager and smtp",
        ),
        ("{channels: {a: {webhook: https://a.test}}}", "channels.a.webhook: lacks secret, write secret beside it"),
        (
            "{channels: {a: {smtp: smtp://a.test, to: [a@b.c]}}}",
            "channels.a.smtp: lacks from, write from beside it",
        ),
        (
            f"{{channels: {{a: {{slack: https://a.test, secret: {SECRET}}}}}}}",
            "channels.a.secret: belongs to webhook, leave it out",
        ),
        *(
            (
                f"{{channels: {{a: {{alertmanager: '{url}'}}}}}}",
                "channels.a.alertmanager: is reached in the clear, write https://, or private: true beside it where it "
                "is in a network of your own",
            )
            for url in ("http://a.test:9093/x", "http://a.test/x', private: 'no")
        ),
        (
            "{channels: {a: {slack: http://a.test}}}",
            "channels.a.slack: is reached in the clear, write https://",
        ),
        *(
            (
                f"{{channels: {{a: {{slack: '{url}'}}}}}}",
                f"channels.a.slack: is not a URL to which messages can be sent, {A_WEBHOOK}",
            )
            for url in (
                "https://",
                "https://[x",
                "https://a.test:0/",
                "ftp://a.test",
                "https://u:p@a.test",
                "https://a.test/#x",
            )
        ),
        *(
            (
                f"{{channels: {{a: {{webhook: https://a.test, secret: '{secret}'}}}}}}",
                f"channels.a.secret: is no such secret, {A_SECRET}",
            )
            for secret in ("whsec_short", "A" * 32, "whsec_" + "A" * 92)
        ),
        ("{channels: {a: {pagerduty: short}}}", f"channels.a.pagerduty: is no such key, {A_ROUTING_KEY}"),
        *(
            (
                f"{{channels: {{a: {{smtp: '{url}', from: a@b.c, to: a@b.c}}}}}}",
                f"channels.a.smtp: is not the URL of a server that takes mail, {AN_SMTP}",
            )
            for url in ("smtp://", "http://a.test", "smtp://a.test/x", "smtp://a.test:0", "smtp://a.test:x")
        ),
        (
            "{channels: {a: {smtp: smtp://a.test, from: nobody, to: a@b.c}}}",
            f"channels.a.from: is no address that mail can be sent to, {AN_ADDRESS}",
        ),
        *(
            (f"{{runbooks: '{url}'}}", f"runbooks: is not the URL of a folder, {A_FOLDER}")
            for url in ("docs/", "https://git.test/docs", "https://[x/", "javascript:alert(1)/", "https://git.test/?q=/")
        ),
        ("{thresholds: 80}", f"thresholds: is no list of percentages, {THRESHOLDS}"),
        ("{thresholds: [100, 80]}", f"thresholds: does not grow, {THRESHOLDS}"),
        ("{thresholds: [0]}", "thresholds: 0 is out of range, a whole number from 1 to 1000"),
        ("{routes: {page: [ops]}}", "routes.page.0: there is no channel ops, known here: there is none yet"),
        ("{customers: ops}", "customers: there is no channel ops, known here: there is none yet"),
        (f"{{channels: {{ops: {OPS}}}, customers: ops}}", "customers: ops sends no mail, name a channel with smtp"),
        ("{channels: {a: 7}, customers: a}", "channels.a: is not a mapping, its fields are alertmanager, from, "),
        ("{channels: 7}", "channels: is not a mapping, "),
        ("{routes: {page: ops}}", "routes.page: is not a list, write [ ] around it"),
        ("{routes: {page: [[ops]]}}", "routes.page.0: is not a single value"),
        ("7", ": is not a mapping, its fields are channels, customers, "),
    ],
)  # fmt: skip
def test_invalid_alert_setting_reports_its_line_without_secrets(folder: Path, written: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        alerts(folder, written)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"collector.yaml:2: alerts{'' if problem.startswith(':') else '.'}{problem}")
