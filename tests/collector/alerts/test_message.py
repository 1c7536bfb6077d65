"""Messages to alert channels: content, signature, retries, and the permitted addresses."""

import base64
import hashlib
import hmac
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from edgeproxy.collector.alerts import message as forms
from edgeproxy.collector.alerts.message import AlertMessage, ServiceSite
from edgeproxy.collector.alerts.mutes import DAYS_MAX, PAGING_DAYS_MAX, get_days_max
from edgeproxy.collector.languages.reader import create_reader
from edgeproxy.collector.webhooks.address_policy import find_refusal
from edgeproxy.collector.webhooks.retries import BACKOFF_SECONDS, compute_wait
from edgeproxy.collector.webhooks.signature import sign_webhook
from tests.support.mailbox import text_of

READER, SITE = create_reader("en"), ServiceSite("Example API", "https://console.test", "https://portal.test")
SAID = AlertMessage(
    7,
    "gap:edge-1:2026-11-22",
    "batches_lost",
    "page",
    None,
    "edge-1 <!channel> & more",
    {"seq": 3, "why": "a\nb"},
    1_790_000_000_123,
)


def test_signature_equals_the_example_of_the_specification() -> None:
    """The example of the specification, and of its libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    fields = sign_webhook("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, [secret])
    assert fields == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    both = sign_webhook("a", 1, b"x", [secret, "whsec_" + base64.b64encode(b"k" * 24).decode()])
    first, second = both["webhook-signature"].split(" ")
    assert second == "v1," + base64.b64encode(hmac.digest(b"k" * 24, b"a.1.x", hashlib.sha256)).decode() != first


def test_each_alert_format_has_its_own_body() -> None:
    body = orjson.loads(forms.format_webhook(SAID))
    assert body["type"] == "alert.batches_lost"
    assert body["timestamp"] == "2026-09-21T14:13:20.123Z"
    assert body["data"]["details"] == {"seq": 3, "why": "a\nb"}

    document = orjson.loads(forms.format_slack(SAID))
    assert document["text"] == "[PAGE] edge-1 &lt;!channel&gt; &amp; more", "a mention in a name is escaped"
    assert [block["type"] for block in document["blocks"]] == ["section", "section", "context"]
    quiet = orjson.loads(forms.format_slack(SAID._replace(details={})))
    assert [block["type"] for block in quiet["blocks"]] == ["section", "context"]

    event = orjson.loads(forms.format_pagerduty(SAID, "k" * 32))
    assert (event["routing_key"], event["dedup_key"]) == ("k" * 32, SAID.key)
    assert event["payload"]["severity"] == "critical"
    long = orjson.loads(forms.format_pagerduty(SAID._replace(key="x" * 256), "k" * 32))
    assert len(long["dedup_key"]) < 256

    mail = forms.format_mail(SAID._replace(customer="acme"), "alerts@example.com", ("a@b.c", "d@e.f"), READER, SITE)
    assert mail["To"] == "a@b.c, d@e.f"
    assert mail["Message-ID"] == f"<{SAID.name}@example.com>"
    assert mail["Subject"] == "[PAGE] edge-1 <!channel> & more"
    text = text_of(mail)
    assert "Customer: acme\nBatch number: 3\nReason: a b\n\n" in text
    assert "Kind: batches_lost, edges report batches that are gone\n" in text
    assert "What to do: Compare the edge's own totals" in text
    assert "More: docs/operations/alerts.md#collectorgap\n" in text
    linked = [
        text_of(
            forms.format_mail(SAID, "alerts@example.com", ("a@b.c",), READER, SITE, "https://git.test/x/")
        ).encode(),
        forms.format_slack(SAID, "https://git.test/x/"),
        forms.format_pagerduty(SAID, "k" * 32, "https://git.test/x/"),
        forms.format_alertmanager(SAID, 0.0, "https://git.test/x/"),
    ]
    assert all(b"https://git.test/x/docs/operations/alerts.md#collectorgap" in body for body in linked)
    own = forms.format_customer_mail(SAID, "alerts@example.com", "a@b.c", READER, SITE)
    assert "What to do" not in own.as_string(), "a customer is not told what operators do"


def test_alert_of_an_unknown_kind_pages_and_unknown_severity_is_refused() -> None:
    assert get_days_max("of_a_later_version", "operator") == PAGING_DAYS_MAX
    assert get_days_max("of_a_later_version", "customer") == DAYS_MAX
    row: Any = SimpleNamespace(**SAID._asdict() | {"details": "{}", "kind": "of_a_later_version"})
    assert forms.parse_message(row).kind == "of_a_later_version"
    row.severity = "poison"
    with pytest.raises(ValueError, match="none of the words"):
        forms.parse_message(row)


def test_forged_detail_cannot_imitate_a_line_of_the_mail() -> None:
    forged = "x\r\n\nWhat to do: Pay at https://evil.test\x85More:\u2028Alert 8\u202e, \x1b[2K"
    alert = SAID._replace(customer="acme", details={"why": forged, "name\nMore": [forged]}, key="a\nb")
    for mail, own in (
        (forms.format_mail(alert, "a@example.com", ("a@b.c",), READER, SITE), ["What to do", "More", "Alert 7, a b"]),
        (forms.format_customer_mail(alert, "a@example.com", "a@b.c", READER, SITE), ["Alert 7"]),
    ):
        lines = text_of(mail).splitlines()  # By all that any reader takes for the end of a line.
        named = ["Reason", "name More"] if len(own) > 1 else ["Reason"]
        assert [line.partition(":")[0] for line in lines if "evil.test" in line] == named
        begins = [line.partition(":")[0] for line in lines]
        assert [name for name in begins if name.startswith(("What to do", "More", "Alert"))] == own
        assert all(line.isprintable() for line in lines)
    (body,) = orjson.loads(forms.format_alertmanager(alert, 0.0))
    assert len(body["annotations"]["description"].splitlines()) == 2
    fields = [field["text"].splitlines() for field in orjson.loads(forms.format_slack(alert))["blocks"][1]["fields"]]
    assert [len(lines) for lines in fields] == [2, 2], "its name, and its value"


def test_alert_message_name_depends_only_on_its_key() -> None:
    assert SAID.name == SAID._replace(title="later").name != SAID._replace(key="other").name


@pytest.mark.parametrize(
    ("address", "host", "private", "why"),
    [
        ("93.184.215.14", "hooks.test", False, None),
        ("2606:4700::6810:84e5", "hooks.test", False, None),
        ("127.0.0.1", "127.0.0.1", False, None),
        ("::1", "localhost", False, None),
        # A name that leads to this host, by whichever of its addresses.
        ("127.0.0.1", "hooks.test", True, "this host"),
        ("::1", "hooks.test", True, "this host"),
        ("::ffff:127.0.0.1", "hooks.test", True, "this host"),
        # A cloud's metadata service is unreachable in every form of its address.
        ("169.254.169.254", "hooks.test", True, "no receiver"),
        ("169.254.169.254", "169.254.169.254", True, "no receiver"),
        ("::ffff:169.254.169.254", "hooks.test", True, "no receiver"),
        ("64:ff9b::a9fe:a9fe", "hooks.test", True, "no receiver"),
        ("2002:a9fe:a9fe::1", "hooks.test", True, "no receiver"),
        ("fd00:ec2::254", "hooks.test", True, "no receiver"),
        ("100.100.100.200", "hooks.test", True, "no receiver"),
        ("192.0.0.192", "hooks.test", True, "no receiver"),
        ("fe80::1%eth0", "hooks.test", True, "no receiver"),
        ("0.0.0.0", "hooks.test", True, "no receiver"),
        ("224.0.0.1", "hooks.test", True, "no receiver"),
        ("10.0.0.5", "hooks.test", True, None),
        ("10.0.0.5", "hooks.test", False, "private: true"),
        ("::ffff:192.168.1.1", "hooks.test", False, "private: true"),
        ("fd12::1", "hooks.test", False, "private: true"),
        ("100.64.0.1", "hooks.test", False, "private: true"),
    ],
)
def test_webhook_address_check_refuses_private_and_reserved_addresses(
    address: str, host: str, private: bool, why: str | None
) -> None:
    said = find_refusal(address, host, private=private)
    assert (said is None) == (why is None), said
    assert why is None or why in (said or "")


def test_plain_http_webhook_is_refused_outside_the_private_network() -> None:
    said = [find_refusal(one, "am.test", private=True, in_clear=True) for one in ("10.0.0.5", "fd12::1", "8.8.8.8")]
    assert said == [None, None, "it leads out of the private network, in the clear: write https://"]


def test_retry_waits_grow_with_jitter_up_to_a_bound() -> None:
    assert [compute_wait(n, None, lambda: 0.0) for n in (1, 2, 10, 11)] == [5, 30, 36000, None]
    assert compute_wait(1, None, lambda: 1.0) == 5 * 1.2
    assert compute_wait(1, 100.0, lambda: 0.0) == 100
    assert compute_wait(1, 10.0**9, lambda: 0.0) == 3600, "the wait has an upper bound"
    assert sum(BACKOFF_SECONDS) > 86400
