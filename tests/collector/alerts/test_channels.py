"""Each channel against a real server: accepted and failed deliveries with their reasons, and forbidden URLs."""

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from edgeproxy.collector.alerts.channels import Envelope, send_message
from edgeproxy.collector.alerts.message import AlertMessage
from edgeproxy.collector.webhooks.http_post import DeliveryFailure
from edgeproxy.config.collector.alerts import Channel
from loadtest.testbed.authority import Authority
from loadtest.testbed.ports import HOST
from tests.support.receivers import MailTaker, Receiver

KEY = b"k" * 32
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")  # The test server uses AUTH without TLS on this host.
SECRET = "whsec_" + base64.b64encode(KEY).decode()
SAID = AlertMessage(
    1, "gap:edge-1", "batches_lost", "page", None, "edge-1 lost something", {"seq": 3}, 1_790_000_000_000
)
NOW = 1_790_000_001.5


@dataclass
class Servers:
    """The receiving servers: without TLS, and with an untrusted certificate."""

    hooks: Receiver
    mail: MailTaker
    hooks_tls: Receiver
    mail_tls: MailTaker


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    pair = Authority(tmp_path_factory.mktemp("tls")).issue("localhost", HOST)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    with ExitStack() as ends:
        made = (Receiver(), MailTaker(), Receiver(tls), MailTaker(tls))
        yield Servers(*(ends.enter_context(one) for one in made))  # type: ignore[arg-type]


def sent(recipient: str | None = None, **channel: Any) -> DeliveryFailure | None:
    """Send SAID by a channel with these settings within 10 seconds. Return the failure, or None."""

    async def run() -> DeliveryFailure | None:
        async with asyncio.timeout(10):
            return await send_message(Channel.model_validate(channel), SAID, Envelope(recipient, NOW))

    return asyncio.run(run())


def test_webhook_is_signed_with_each_secret_and_its_answer_is_not_read(servers: Servers) -> None:
    hooks = servers.hooks
    where = f"http://{HOST}:{hooks.port}/signed"
    hooks.statuses["/signed"] = [204, 200]
    assert sent(webhook=where, secret=[SECRET, SECRET]) is None
    assert sent(webhook=where, secret=SECRET) is None, "an endless answer is one of 200"
    first, again = hooks.on("/signed")
    fields = first.fields
    content = b".".join((fields["webhook-id"].encode(), b"1790000001", first.body))
    mac = "v1," + base64.b64encode(hmac.digest(KEY, content, hashlib.sha256)).decode()
    assert fields["webhook-signature"] == f"{mac} {mac}"
    assert again.fields["webhook-id"] == fields["webhook-id"]
    assert first.json()["data"]["title"] == SAID.title
    assert fields["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "fields", "failed"),
    [
        (503, {"Retry-After": "60"}, DeliveryFailure("it answers 503", False, 60.0, 503)),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, DeliveryFailure("it answers 429", status=429)),
        (410, {}, DeliveryFailure("it answers 410", True, status=410)),
        (307, {"Location": "/elsewhere"}, DeliveryFailure("it answers 307", status=307)),
    ],
)
def test_refused_delivery_returns_its_failure(
    servers: Servers, status: int, fields: dict[str, str], failed: DeliveryFailure
) -> None:
    hooks = servers.hooks
    hooks.statuses["/refuses"], hooks.fields = [status], fields
    assert sent(slack=f"http://{HOST}:{hooks.port}/refuses") == failed
    assert hooks.on("/elsewhere") == [], "redirections are not followed"


def test_slack_and_pagerduty_receive_their_formats(servers: Servers) -> None:
    hooks = servers.hooks
    hooks.fields = {}
    assert sent(slack=f"http://{HOST}:{hooks.port}/services/T/B/x") is None
    assert sent(pagerduty="k" * 32, url=f"http://{HOST}:{hooks.port}/v2/enqueue") is None
    (slack,), (event,) = hooks.on("/services/T/B/x"), hooks.on("/v2/enqueue")
    assert slack.json()["text"] == "[PAGE] edge-1 lost something"
    assert event.json()["event_action"] == "trigger"


def test_failures_hide_secrets_and_untrusted_servers_get_no_message(servers: Servers) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        nobody = closed.getsockname()[1]
        failed = [
            sent(slack=f"https://localhost:{servers.hooks_tls.port}/secret"),
            sent(slack=f"http://{HOST}:{nobody}/secret"),
            sent(slack="https://secret.invalid/secret"),
            sent(smtp=f"smtps://me:secret@localhost:{servers.mail_tls.port}", to="a@b.c", **{"from": "a@b.c"}),
            sent(smtp=f"smtp://me:secret@{HOST}:{servers.mail.port}", to="a@b.c", **{"from": "a@b.c"}),
        ]
    whys = [one.why for one in failed if one is not None]
    assert len(whys) == 5
    assert whys[0] == "its certificate cannot be trusted"
    assert whys[4] == "the mail server answers 535"
    assert not any("secret" in why for why in whys), whys
    assert servers.hooks_tls.got == []
    assert servers.mail_tls.got == []


def test_channel_does_not_connect_to_a_url_of_this_host() -> None:
    """The kernel treats 0.0.0.0 as this host, although it is not a loopback address."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()
        listening.setblocking(False)
        port = listening.getsockname()[1]
        failed = sent(slack=f"https://0.0.0.0:{port}/", private=True)
        assert failed == DeliveryFailure("it leads to an address that no receiver has")
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_mail_is_accepted_or_refused_permanently_or_temporarily(servers: Servers) -> None:
    mail = servers.mail
    mail.refused = {"gone@b.c": 550, "later@b.c": 451}
    channel = {"smtp": f"smtp://me:p%40ss@{HOST}:{mail.port}", "from": "alerts@example.com", "to": ["a@b.c", "d@e.f"]}
    assert sent(**channel) is None
    (created,) = mail.to("d@e.f")
    assert created["Subject"] == "[PAGE] edge-1 lost something"
    assert sent("own@b.c", **channel) is None
    assert [len(mail.to(address)) for address in ("own@b.c", "a@b.c")] == [1, 1]
    assert sent("gone@b.c", **channel) == DeliveryFailure("the mail server answers 550 to the recipient", True)
    assert sent("later@b.c", **channel) == DeliveryFailure("the mail server answers 451 to the recipient")
