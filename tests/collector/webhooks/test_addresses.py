"""Which addresses a customer's URL may lead to, also where its name resolves otherwise the second time."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import pytest

from edgeproxy.collector.webhooks.address_policy import find_customer_refusal
from edgeproxy.collector.webhooks.deliveries import ClaimedDelivery
from edgeproxy.collector.webhooks.http_post import DeliveryFailure, post_body
from edgeproxy.collector.webhooks.sender import send_delivery
from edgeproxy.config.collector.webhooks import Webhooks
from loadtest.testbed.ports import HOST
from tests.support.receivers import Receiver

KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAME = "hooks.acme.example"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("::", False),
        ("10.0.0.1", False),
        ("172.31.255.255", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),  # Shared by providers.
        ("169.254.169.254", False),  # Metadata.
        ("100.100.100.200", False),
        ("168.63.129.16", False),  # Metadata of a cloud, at a public address.
        ("fd00:ec2::254", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("2001:db8::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses_alone_may_be_reached(address: str, may: bool) -> None:
    assert (find_customer_refusal(address, (), is_encrypted=True) is None) == may
    assert find_customer_refusal(address, (), is_encrypted=False) is not None, "never in the clear"


def test_networks_that_the_operator_lists_may_be_reached_in_the_clear() -> None:
    networks = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    for address in ("10.1.2.3", "fd00::1", "::ffff:10.1.2.3"):
        assert find_customer_refusal(address, networks, is_encrypted=False) is None, address
    for address in ("10.2.0.1", "127.0.0.1", "169.254.169.254"):
        assert find_customer_refusal(address, networks, is_encrypted=True) is not None, address


def send(url: str, *networks: str) -> DeliveryFailure | None:
    settings = Webhooks.model_validate({"encryption": KEY, "networks": list(networks)})
    delivery = ClaimedDelivery("msg_1", "we_1", 0, 0, "{}", url, b"", None, None, "enabled", None, "acme", None)

    async def run() -> DeliveryFailure | None:
        async with asyncio.timeout(10):
            return await send_delivery(delivery, [SECRET], settings, 1, post_body)

    return asyncio.run(run())


def test_a_name_that_resolves_otherwise_the_second_time(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address is allowed, and the second is not. The call goes to the address that was checked."""
    lookups: list[str] = []
    answers = iter([HOST, "127.0.0.2"])
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME:
            return resolve(host, *arguments, **options)
        lookups.append(next(answers))
        return resolve(lookups[-1], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = f"http://{NAME}:{receiver.port}/rebinding"
    with closing(socket.create_server(("127.0.0.2", receiver.port))) as inner:
        inner.setblocking(False)
        assert send(url, f"{HOST}/32") is None
        assert lookups == [HOST], "each attempt looks the name up once"
        assert send(url, f"{HOST}/32") == DeliveryFailure("it would be sent in the clear: write https://")
        with pytest.raises(BlockingIOError):
            inner.accept()
    assert len(receiver.on("/rebinding")) == 1


def test_redirections_and_proxies_lead_nowhere(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:{receiver.port}/proxy")
    receiver.statuses["/from"], receiver.fields = [302], {"Location": f"http://{HOST}:{receiver.port}/to"}
    try:
        assert send(f"http://{HOST}:{receiver.port}/from", "127.0.0.0/8") == DeliveryFailure(
            "it answers 302", status=302
        )
    finally:
        receiver.fields = {}
    assert receiver.on("/to") == []
    assert [hook.path for hook in receiver.got if hook.path != "/rebinding"] == ["/from"]


def test_webhook_sends_no_request_to_an_untrusted_certificate(tmp_path: Any) -> None:
    import ssl

    from loadtest.testbed.authority import Authority

    pair = Authority(tmp_path).issue("localhost", HOST)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    with Receiver(tls) as secured:
        failed = send(f"https://localhost:{secured.port}/secret", "127.0.0.0/8", "::1/128")
        assert failed == DeliveryFailure("its certificate cannot be trusted")
        assert secured.got == []
