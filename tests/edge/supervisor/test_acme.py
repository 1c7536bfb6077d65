"""When a certificate by ACME is renewed, and how long a failure is waited for."""

import asyncio
import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from msgspec import json

pytest.importorskip("acme", reason="there is no acme on this machine")

from acme import messages

from edgeproxy.config.edge.load import load_edge
from edgeproxy.edge.supervisor import acme, acme_order, self_signed
from edgeproxy.edge.supervisor.acme import CHECK_SECONDS, compute_wait
from edgeproxy.edge.supervisor.acme_order import compute_renewal
from edgeproxy.edge.supervisor.self_signed import create_self_signed
from loadtest.testbed.authority import Authority
from tests.config.conftest import LEAST

DAY = 86400.0


def test_renewal_is_due_at_two_thirds_of_the_life_but_not_soon_after_the_last(tmp_path: Path) -> None:
    file = Authority(tmp_path).issue("a.test", age=80, days=10).cert
    now = datetime.now(UTC).timestamp()
    os.utime(file, (now, now - 80 * DAY))
    assert compute_renewal(file) == pytest.approx(now - 20 * DAY, abs=60)
    os.utime(file, (now, now - 3600))
    assert compute_renewal(file) == pytest.approx(now + 2 * DAY - 3600, abs=60)
    os.utime(file, (now, now + 365 * DAY))  # The clock was ahead when it was written.
    assert compute_renewal(file) == pytest.approx(now + 2 * DAY, abs=60)
    file.write_bytes(create_self_signed(["a.test"]))
    assert compute_renewal(file) == 0


def test_waits_double_up_to_a_bound_and_follow_the_authority() -> None:
    assert [compute_wait(count, None, 1.0) for count in (1, 2, 3)] == [180, 360, 720]
    assert compute_wait(10_000, None, 1.0) == CHECK_SECONDS
    # In the first hour, five attempts at most, also with the shortest waits.
    assert sum(compute_wait(count, None, 0.8) for count in range(1, 6)) > timedelta(hours=1).total_seconds()
    assert compute_wait(1, 7200, 1.0) == 7200
    assert compute_wait(1, 30 * DAY, 1.0) == DAY
    assert compute_wait(1, 1, 1.2) == pytest.approx(216)


@pytest.mark.parametrize("command", [("/nonexistent",), ("/bin/echo", '{"renew_at": "soon"}'), ("/bin/echo", "[]")])
def test_process_that_fails_in_any_way_counts_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    tls = "{acme: {domains: a.test, terms_accepted: true}}"
    text = f"state: {tmp_path}\nlisten: [0.0.0.0:80, {{address: 0.0.0.0:443, tls: {tls}}}]\n{LEAST}"
    (tmp_path / "edge.yaml").write_text(text)
    settings = load_edge(tmp_path / "edge.yaml", {}, files=False)
    listener = settings.listen[1].tls
    assert listener is not None
    file = listener.list_pairs(tmp_path)[0].cert
    file.parent.mkdir()
    with monkeypatch.context() as past:
        past.setattr(self_signed, "LIFE", timedelta(0))
        file.write_bytes(create_self_signed(["a.test"]))
    monkeypatch.setattr(acme, "COMMAND", command)
    monkeypatch.setattr(acme, "LOCK_SECONDS", 0.01)

    async def served(number: int, seconds: float) -> list[str]:
        return []

    async def fail() -> None:
        renewals = acme.AcmeRenewals(settings, lambda: settings, lambda: True, lambda _: None, served)
        standby = acme.AcmeRenewals(settings, lambda: settings, lambda: False, lambda _: None, served)
        await renewals.begin()
        await standby.begin()
        assert not self_signed.is_expired(file.read_bytes())
        async with asyncio.timeout(10):
            while not file.with_suffix(".retry").exists():  # noqa: ASYNC110 - another thread writes it
                await asyncio.sleep(0.01)
            # The supervisor that takes over waits as long.
            while standby.series() != renewals.series():  # noqa: ASYNC110 - another thread reads it
                await asyncio.sleep(0.01)
        assert [values for _, _, values in renewals.series()] == [(1,)]
        await renewals.end()
        await standby.end()

    asyncio.run(fail())


def test_damaged_key_of_an_account_is_named(tmp_path: Path) -> None:
    account = tmp_path / "account.pem"
    account.write_text("damaged")
    order = acme_order.Order("a.pem", str(account), ["a.test"], None, "https://localhost:9", [], [], None)
    ended = subprocess.run(acme.COMMAND, input=json.encode(order) + b"\n", capture_output=True, check=True, timeout=60)
    assert f"{account} has no key of an account".encode() in ended.stdout


def test_body_of_a_redirect_is_not_read_beyond_the_bound() -> None:
    body = bytes(64 << 20)
    sent: list[bool] = []

    def answer() -> None:
        end, _ = listening.accept()
        with end:
            end.recv(65536)
            head = f"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                end.sendall(head.encode() + body)
            except OSError:
                sent.append(False)
            else:
                sent.append(True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=answer)
        thread.start()
        with pytest.raises(acme_order.OrderError, match="more than 1 MiB"):
            acme_order.Network().get(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join(10)
    assert sent == [False]
    with pytest.raises(acme_order.OrderError, match="has no https"):
        acme_order.Network().get("http://192.0.2.1/")


@pytest.mark.parametrize("length", [22, 256, 60_000])
def test_token_that_is_no_token_of_the_standard_is_refused(length: int) -> None:
    token = "A" * length
    challenge = {"type": "http-01", "token": token, "url": "https://localhost/", "status": "pending"}
    body = messages.Authorization.from_json(
        {"identifier": {"type": "dns", "value": "a.test"}, "status": "pending", "challenges": [challenge]}
    )
    authorization = messages.AuthorizationResource(body=body, uri="https://localhost/")
    if length <= 256:
        assert acme_order._select_challenge(authorization, ["http-01"]).chall.encode("token") == token
    else:
        with pytest.raises(acme_order.OrderError, match="token"):
            acme_order._select_challenge(authorization, ["http-01"])
