"""A collector takes new secrets on SIGHUP, or refuses the file as a whole."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from hmac import HMAC
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from sqlalchemy.exc import DBAPIError

from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from loadtest.testbed.authority import Authority, Pair
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import PLANS, Collector
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.postgresql import OWNER, Postgresql
from loadtest.testbed.waiting import until
from tests.support.batch_shipper import BatchShipper
from tests.support.receivers import Receiver
from tests.support.visitor import Visitor

EVENT = (
    b'{"id":"evt_1","object":"event","type":"invoice.paid","created":1,"livemode":true,'
    b'"data":{"object":{"object":"invoice","id":"in_1"}}}'
)
"""An event of the other mode, which is stored and not applied."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    """A server that asks its users for passwords."""
    with closing(Postgresql(in_memory=True)) as postgresql:
        postgresql.url = postgresql.database()  # type: ignore[attr-defined]
        (postgresql.data / "pg_hba.conf").write_text(
            f"host all postgres {HOST}/32 trust\nhost all all {HOST}/32 scram-sha-256\n"
        )
        postgresql.ask("SELECT pg_reload_conf()")
        yield postgresql


def build_url(server: Postgresql, password: str) -> str:
    return str(server.url).replace(f"//{OWNER}@", f"//{OWNER}:{password}@")  # type: ignore[attr-defined]


def set_password(server: Postgresql, password: str) -> None:
    server.ask(f"ALTER ROLE {OWNER} PASSWORD '{password}'")


def test_new_password_is_for_new_connections_and_old_ones_end_after_their_use(server: Postgresql) -> None:
    set_password(server, "first")

    async def fetch_process(connection: Any) -> int:
        return int((await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one())

    async def run() -> None:
        database = await Database.connect(build_url(server, "first"))
        try:
            async with database.reading() as reading:
                before = await fetch_process(reading)
                set_password(server, "second")
                new = build_url(server, "second")
                assert database.has_new_password(new)
                assert not database.has_new_password(new.replace(OWNER, "other"))
                with pytest.raises(UnusableDatabaseError, match="new password does not do"):
                    await database.check_password(build_url(server, "wrong"))
                await database.check_password(new)
                database.use_password(new)
                assert await fetch_process(reading) == before
            async with database.reading() as reading, database.writing() as writing:
                assert await fetch_process(reading) != before
                await fetch_process(writing)
            assert server.ask(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {before}") == "0"
            set_password(server, "first")  # Without a password, the first URL's password would be used.
            database.use_password(str(server.url))  # type: ignore[attr-defined]
            with pytest.raises(DBAPIError, match="password"):
                async with database.reading():
                    pass
        finally:
            await database.close()

    asyncio.run(run())


def reload(collector: Collector) -> bool:
    """Send a SIGHUP. Return whether the configuration is applied."""
    assert collector.process is not None
    before = collector.output
    collector.process.send_signal(signal.SIGHUP)
    ends = ('"reloaded"', "the configuration was refused")
    until(lambda: any(end in collector.output[len(before) :] for end in ends), "the reload is over", seconds=60)
    return '"reloaded"' in collector.output[len(before) :]


class Login:
    """A mail server that notes the passwords of its clients."""

    def __init__(self) -> None:
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self.passwords: list[bytes] = []
        self._controller = Controller(
            object(), hostname=HOST, port=self.port, authenticator=self._note, auth_require_tls=False
        )
        self._controller.start()

    def _note(self, *arguments: Any) -> AuthResult:
        self.passwords.append(arguments[-1].password)
        return AuthResult(success=True)

    def close(self) -> None:
        self._controller.stop()
        self._ports.close()


def sign(secret: str) -> str:
    at = int(time.time())
    return f"t={at},v1={HMAC(secret.encode(), f'{at}.'.encode() + EVENT, sha256).hexdigest()}"


class Rotated:
    """A collector with secrets in files."""

    def __init__(self, folder: Path, server: Postgresql, mail: Login, spans: Receiver) -> None:
        self._receiver = spans
        self.secrets = {name: folder / name for name in ("mail", "client", "stripe", "webhooks", "header")}
        self.rotate("first")
        self.collector = Collector(
            folder / "collector",
            build_url(server, "first"),
            billing={
                "plans": PLANS,
                "mode": "live",
                "credits": {},
                "stripe": {
                    "base": f"http://{HOST}:1",
                    "key": str(self.secrets["stripe"]),
                    "webhook_secrets": str(self.secrets["webhooks"]),
                },
            },
            tracing={
                "endpoint": f"http://{HOST}:{spans.port}",
                "sample": "100%",
                "headers": {"x-token": f"${{file:{self.secrets['header']}}}"},
            },
            pages={
                "mail": {
                    "server": f"{HOST}:{mail.port}",
                    "tls": "none",
                    "sender": "a@example.com",
                    "user": "me",
                    "password": f"${{file:{self.secrets['mail']}}}",
                },
                "customers": {
                    "issuer": "https://issuer.example",
                    "client": "edgeproxy",
                    "client_secret": f"${{file:{self.secrets['client']}}}",
                },
                "sign_up": {"tier": "basic"},
            },
        )

    def rotate(self, word: str) -> None:
        for name, file in self.secrets.items():
            prefix = {"stripe": "sk_test_", "webhooks": "whsec_"}.get(name, "")
            file.write_text(f"{prefix}{word}\n")

    def reload(self, **settings: Any) -> bool:
        """Write the file with these settings and return whether a SIGHUP applies it."""
        self.collector.settings |= settings
        self.collector.write()
        return reload(self.collector)

    def hears(self, secret: str) -> bool:
        """Return whether an event with this signature is accepted."""
        path, fields = "/billing/webhooks/stripe", {"Stripe_Signature": sign(secret)}
        return self.collector.send("POST", path, EVENT, token=None, **fields).status == 200

    def spans(self, token: str) -> bool:
        """Return whether spans have arrived with this token."""
        return any(hook.fields.get("x-token") == token for hook in tuple(self._receiver.got))

    def sign_up(self, email: str) -> None:
        with Visitor(f"http://{HOST}:{self.collector.port}") as visitor:
            visitor.get("/sign-up")
            visitor.send("/sign-up", email=email)


def test_rotated_secrets_are_used_or_refused_as_a_whole(server: Postgresql, tmp_path: Path) -> None:
    set_password(server, "first")
    with Receiver() as spans, closing(Login()) as mail:
        rotated = Rotated(tmp_path, server, mail, spans)
        with closing(rotated.collector.start()) as collector:
            rotated.sign_up("a@example.com")
            until(lambda: len(mail.passwords) == 1, "the first mail is sent")
            assert rotated.hears("whsec_first")
            until(lambda: rotated.spans("first"), "spans have the first header")
            rotated.rotate("second")
            # Each fault is in another step, and the rest of the file is new.
            rotated.secrets["webhooks"].write_text("two words\n")
            assert not rotated.reload(database=build_url(server, "first"))
            assert "does not begin with whsec_" in collector.output
            rotated.secrets["webhooks"].write_text("whsec_second\n")
            rotated.secrets["stripe"].write_text("none\n")
            assert not rotated.reload()
            assert "is no secret or restricted key of Stripe" in collector.output
            rotated.secrets["stripe"].write_text("sk_test_second\n")
            assert not rotated.reload(database=build_url(server, "second"))
            assert "database: the new password does not do" in collector.output
            assert collector.metric("collector_config_ok") == 0
            assert rotated.hears("whsec_first")
            assert not rotated.hears("whsec_second")
            set_password(server, "second")
            assert rotated.reload()
            assert '"needs_restart": []' in collector.output
            assert collector.metric("collector_config_ok") == 1
            assert rotated.hears("whsec_second")
            assert not rotated.hears("whsec_first")
            rotated.sign_up("b@example.com")
            until(lambda: len(mail.passwords) == 2, "the second mail is sent")
            assert mail.passwords == [b"first", b"second"]
            until(lambda: rotated.spans("second"), "spans have the second header")
            server.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{OWNER}'")
            batch = Chain().next()
            # The collector may use a connection once more before it reads that the server has ended it.
            until(lambda: collector.post(batch).status == 200, "a new connection takes a batch")
            rotated.secrets["client"].write_text("x" * 4096)
            # The new secrets may be for another server, which serves after a restart.
            rotated.secrets["webhooks"].write_text("whsec_third\n")
            pages, billing = (rotated.collector.settings[part] for part in ("pages", "billing"))
            stripe = {**billing["stripe"], "base": f"http://{HOST}:2"}
            changed: dict[str, Any] = {"billing": {**billing, "stripe": stripe}}
            assert rotated.reload(pages={**pages, "url": "https://pages.example"}, **changed)
            assert '"needs_restart": ["billing", "pages"]' in collector.output
            assert rotated.hears("whsec_second")
            assert not rotated.hears("whsec_third")
            for word in ("first", "second"):
                assert not any(f"{prefix}{word}" in collector.output for prefix in ("sk_test_", "whsec_", f"{OWNER}:"))


def test_accepted_password_stays_if_the_file_is_refused(server: Postgresql, tmp_path: Path) -> None:
    """The server accepts no connection with the old one any more."""
    set_password(server, "first")
    password, plans = tmp_path / "password", tmp_path / "plans.yaml"
    password.write_text("first\n")
    plans.write_text(Path(PLANS).read_text())
    url = server.database()
    collector = Collector(
        tmp_path / "collector",
        url.replace(f"//{OWNER}@", f"//{OWNER}:${{file:{password}}}@"),
        billing={"plans": str(plans), "mode": "off"},
    )
    with closing(collector.start()):
        chain = Chain()
        assert collector.post(chain.next()).status == 200
        refusal = "BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '57P03'; END"
        database = url.rpartition("/")[2]
        server.ask_in(database, f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {refusal} $$")
        server.ask_in(database, "CREATE TRIGGER t BEFORE UPDATE ON plan_versions EXECUTE FUNCTION refuse()")
        set_password(server, "second")
        password.write_text("second\n")
        plans.write_text(plans.read_text().replace('fee: "99"', 'fee: "98"'))
        assert not reload(collector)
        assert collector.post(chain.next()).status == 200
        server.ask_in(database, "DROP TRIGGER t ON plan_versions")
        assert reload(collector)
        assert '"needs_restart": []' in collector.output
        assert collector.counted(chain) == chain.total


def serve_tls(server: Postgresql, pair: Pair) -> None:
    for name, file in (("server.crt", pair.cert), ("server.key", pair.key)):
        copy = server.data / name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o600)
        if os.getuid() == 0:
            shutil.chown(copy, server.data.owner(), server.data.group())


@pytest.mark.parametrize("way", ["trust", "another file", "sslrootcert"])
def test_new_password_and_new_authority_of_the_database_come_together(
    server: Postgresql, tmp_path: Path, way: str
) -> None:
    """Both files are replaced, and the server restarts with both. A SIGHUP before that is refused."""
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    trusted, password = tmp_path / "trusted.pem", tmp_path / "password"
    trusted.write_bytes(first.file.read_bytes())
    password.write_text("first\n")
    set_password(server, "first")
    serve_tls(server, first.issue(HOST))
    server.ask("ALTER SYSTEM SET ssl = on")
    server.restart()
    url = f"{build_url(server, f'${{file:{password}}}')}?sslmode=verify-full"
    more = {} if way == "sslrootcert" else {"trust": {"files": [str(trusted)]}}
    collector = Collector(
        tmp_path / "collector", f"{url}&sslrootcert={trusted}" if way == "sslrootcert" else url, **more
    )
    with closing(collector.start()):
        shipper = BatchShipper(collector)
        shipper.start()
        try:
            shipper.wait_for_next()
            password.write_text("second\n")
            if way == "another file":
                collector.settings["trust"]["files"] = [str(second.file)]
                collector.write()
            else:
                second.file.replace(trusted)
            assert not reload(collector)
            set_password(server, "second")
            serve_tls(server, second.issue(HOST))
            server.restart()
            assert reload(collector), collector.output
            shipper.wait_for_next()
            until(collector.ready, "the collector is ready")
        finally:
            shipper.end()
        assert collector.counted(shipper.chain) == shipper.chain.total
        assert shipper.statuses <= {200, 503}
        used = f"SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{OWNER}'"
        assert server.ask(used) == "t"
    assert not any(word in collector.output for word in (":first@", ":second@"))
