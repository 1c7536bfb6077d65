"""Alerts of the rules of Prometheus and of the collector arrive through a real Alertmanager with the shipped routes."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from aiohttp import web

from edgeproxy.collector.alerts.message import AlertMessage, format_alertmanager
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.threaded_server import Threaded
from loadtest.testbed.waiting import until
from tests.support.alertmanager import PAGERDUTY_KEYS, PROVIDED, SERVER, Alertmanager
from tests.support.prometheus import SERVER as PROMETHEUS
from tests.support.prometheus import Prometheus
from tests.support.receivers import MailTaker, Receiver

pytestmark = [
    pytest.mark.skipif(SERVER is None, reason="there is no prometheus-alertmanager on this machine"),
    pytest.mark.filterwarnings("ignore:Requiring AUTH"),  # In the clear, on this host.
]
RUNBOOKS = "https://git.example.com/edgeproxy/blob/main/"
AMTOOL = shutil.which("amtool")


@dataclass
class Channels:
    """An Alertmanager, and its receivers."""

    alertmanager: Alertmanager
    web: Receiver
    mail: MailTaker

    def fetch_pages(self) -> list[dict[str, Any]]:
        """Return the events that PagerDuty got."""
        return [hook.json() for hook in self.web.on("/pagerduty")]

    def fetch_chats(self) -> list[dict[str, Any]]:
        """Return the messages that Slack got."""
        return [hook.json() for hook in self.web.on("/slack")]

    def send(self, *alerts: dict[str, str]) -> None:
        """Send alerts with these labels, as Prometheus does."""
        annotations = {"summary": "it happened", "runbook_url": f"{RUNBOOKS}docs/README.md"}
        body = orjson.dumps([{"labels": labels, "annotations": annotations} for labels in alerts])
        fields = {"Content-Type": "application/json"}
        answer = ask(self.alertmanager.port, "/api/v2/alerts", method="POST", body=body, fields=fields)
        assert answer.status == 200, answer


@pytest.fixture
def channels(tmp_path: Path) -> Iterator[Channels]:
    with ExitStack() as ends:
        receiver, mail = ends.enter_context(Receiver()), ends.enter_context(MailTaker())
        alertmanager = Alertmanager(tmp_path / "alertmanager", receiver.port, mail.port)
        ends.callback(alertmanager.close)
        yield Channels(alertmanager, receiver, mail)


@pytest.mark.skipif(AMTOOL is None, reason="there is no amtool on this machine")
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("severity=critical team=platform", "pager-platform"),
        ("severity=critical team=billing", "pager-billing"),
        ("severity=critical team=billing source=collector", "pager-billing"),
        ("severity=critical team=security", "pager-security"),
        ("severity=critical", "pager-platform"),
        ("severity=warning team=platform", "chat-platform"),
        ("severity=warning team=billing source=collector", "chat-billing"),
        ("severity=warning team=security", "chat-security"),
        ("severity=info team=billing", "mail"),
        ("alertname=Watchdog severity=none", "watchdog"),
    ],
)
def test_each_severity_and_team_has_its_receiver(labels: str, receiver: str) -> None:
    command = ["amtool", "config", "routes", "test", f"--config.file={PROVIDED}", *labels.split()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == receiver


def test_pages_chat_and_mail_arrive_and_symptoms_of_a_known_cause_do_not(channels: Channels) -> None:
    edge = {"job": "edgeproxy", "instance": "edge-1", "region": "eu"}
    channels.send(
        {"alertname": "CollectorDown", "job": "collector", "severity": "critical", "team": "platform"},
        {"alertname": "EdgeUsageBehind", **edge, "severity": "warning", "team": "platform"},
        {"alertname": "BillingBooksApart", "job": "collector", "severity": "critical", "team": "billing"},
        {"alertname": "CollectorKeyLeaked", "job": "collector", "severity": "warning", "team": "security"},
        {"alertname": "quota_reached", "severity": "info", "team": "platform"},
    )
    until(lambda: len(channels.fetch_pages()) == 2, "both teams are paged")
    until(lambda: len(channels.fetch_chats()) == 3, "both pages and the warning are in Slack")
    until(lambda: channels.mail.to("security@example.com"), "security has mail")
    until(lambda: channels.mail.to("finance@example.com"), "and finance")
    until(lambda: channels.mail.to("ops@example.com"), "and operators, of what can wait")

    pages = {page["routing_key"]: page["payload"] for page in channels.fetch_pages()}
    assert set(pages) == set(PAGERDUTY_KEYS.values())
    assert pages[PAGERDUTY_KEYS["billing"]]["severity"] == "critical"
    assert f"{RUNBOOKS}docs/README.md" in pages[PAGERDUTY_KEYS["billing"]]["custom_details"]["text"]
    attachments = [chat["attachments"][0] for chat in channels.fetch_chats()]
    assert {chat["title_link"] for chat in attachments} == {f"{RUNBOOKS}docs/README.md"}
    assert {chat["channel"] for chat in channels.fetch_chats()} == {"#ops", "#billing"}
    (mail,) = channels.mail.to("ops@example.com")
    assert mail["Subject"] == "[FIRING info] it happened"

    states = channels.alertmanager.fetch_states()
    assert states.pop("EdgeUsageBehind") == "suppressed"
    assert set(states.values()) == {"active"}
    assert "EdgeUsageBehind" not in b"".join(hook.body for hook in channels.web.got).decode()
    assert "level=error" not in channels.alertmanager.output


def test_alertmanager_merges_repeated_sends_of_one_alert(channels: Channels) -> None:
    key, at = "quota:acme:calls:2026-11:120", round(time.time() * 1000) - 3600_000
    message = AlertMessage(7, key, "quota_reached", "page", "acme", "acme is over its quota", {"used": 12}, at)
    fields = {"Content-Type": "application/json"}
    for _ in range(2):
        body = format_alertmanager(message, time.time(), RUNBOOKS)
        answer = ask(channels.alertmanager.port, "/api/v2/alerts", method="POST", body=body, fields=fields)
        assert answer.status == 200, answer
    until(channels.fetch_pages, "the alert is paged")
    (page,) = channels.fetch_pages()
    assert "acme is over its quota" in page["payload"]["summary"]
    assert "used: 12" in page["payload"]["custom_details"]["text"]
    assert f"{RUNBOOKS}docs/limits/quotas.md" in page["payload"]["custom_details"]["text"]
    assert channels.alertmanager.fetch_states() == {"quota_reached": "active"}


class Metrics(Threaded):
    """Answers each scrape with `text`."""

    def __init__(self, text: str) -> None:
        super().__init__("metrics")
        self._text = text
        self.port = 0

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text=self._text)

    async def _begin(self) -> None:
        application = web.Application()
        application.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.port = cast(int, self._runner.addresses[0][1])

    async def _end(self) -> None:
        await self._runner.cleanup()


@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on this machine")
def test_a_rule_that_fires_in_prometheus_is_paged_with_an_absolute_link(channels: Channels, tmp_path: Path) -> None:
    with ExitStack() as ends:
        sick = ends.enter_context(Metrics("billing_draft_unheld_seconds 2800\n"))
        ports = dict.fromkeys(("edgeproxy", "collector", "probe"), sick.port)
        prometheus = Prometheus(
            tmp_path / "prometheus", ports, alertmanager=channels.alertmanager.port, runbooks=RUNBOOKS
        )
        ends.callback(prometheus.close)
        until(channels.fetch_pages, "the alert is paged")
        until(lambda: "Watchdog" in channels.alertmanager.fetch_states(), "and the way is known to work")
    page = channels.fetch_pages()[0]
    assert page["routing_key"] == PAGERDUTY_KEYS["billing"]
    assert "nobody has compared" in page["payload"]["summary"]
    text = page["payload"]["custom_details"]["text"]
    assert f"What to do: {RUNBOOKS}docs/operations/alerts.md#billingdraftnotheld" in text
    assert "runbooks=" not in text, "the setting is no label"
