"""One residency: its collector, its Stripe account, its bucket, its mail, its receiver of traces, and its edge."""

import base64
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from edgeproxy.collector.exports.storage import Storage
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.regions import clocks
from loadtest.testbed.collector import ADMIN, PLANS, SERVICE, SOLD, Collector
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process
from tests.support.mailbox import Mailbox
from tests.support.receivers import Receiver
from tests.support.s3 import S3
from tests.support.stripe_sandbox import KEY, Sandbox

TIERS: dict[str, Any] = {name: {} for name in ("basic", "free", "standard", "enterprise")}
METERS = {
    **SOLD,
    "requests": {"count": "requests"},
    "people": {"count": "events", "aggregate": "unique"},
    "chats": {"count": "events", "dimensions": {"user": 1000}},
    "desks": {"count": "holdings"},
}


class Side:
    """All processes of a residency. All of its files except backups are below one folder."""

    def __init__(self, folder: Path, name: str, database: str, clock: Path, ends: ExitStack) -> None:
        self.folder, self.name, self.clock = folder, name, clock
        folder.mkdir()
        self.apart = folder.parent / f"{name}-apart"
        """The folder of backups and of the list of erasures."""
        self.apart.mkdir()
        self.key = folder / "directory.key"
        directory_signatures.create_key_file(self.key)
        self.trust = Signer.load(self.key).public_key
        self.mailbox = ends.enter_context(closing(Mailbox()))
        self.receiver = ends.enter_context(Receiver())
        self.sandbox = ends.enter_context(closing(Sandbox(folder.parent / f"{name}-stripe"))).start()
        self.store = ends.enter_context(closing(S3(folder / "store")))
        Storage("s3://copies/first", self.store.environ).create("file", b"")  # Which makes the bucket.
        self.collector = ends.enter_context(closing(Collector(folder / "collector", database)))
        self.collector.command = self.command("collector", "-c")
        self.collector.settings |= self._settings()
        self.edge: Edge | None = None

    def command(self, *words: str) -> tuple[str, ...]:
        """Return a command that runs with the clock of the year."""
        return (sys.executable, "-m", "tests.support.moved_clock", str(self.clock), *words)

    def _settings(self) -> dict[str, Any]:
        master = self.folder / "master.key"
        master.write_bytes(bytes(range(32)))
        master.chmod(0o600)
        stripe_key, secrets = self.folder / "stripe.key", self.folder / "stripe.secrets"
        stripe_key.write_text(KEY)
        secrets.write_text(self.sandbox.listen(f"http://{HOST}:{self.collector.port}/billing/webhooks/stripe"))
        smtp = f"{HOST}:{self.mailbox.port}"
        channel = {"smtp": f"smtp://{smtp}", "from": "edge@example.com", "to": "ops@example.com"}
        stripe = {"base": self.sandbox.url, "key": str(stripe_key), "webhook_secrets": str(secrets)}
        return {
            "residency": self.name,
            "meters": METERS,
            "tiers": TIERS,
            "customers": {},
            "trusted_proxies": [f"{HOST}/32"],
            "directory": {"key": str(self.key)},
            "encryption": {"file": str(master)},
            "privacy": {
                **dict.fromkeys(("pseudonyms", "hash_end_users", "mask_addresses"), True),
                "erasures": str(self.apart / "erased.jsonl"),
            },
            "tracing": self.tracing("collector"),
            "billing": {"plans": PLANS, "mode": "live", "credits": {}, "stripe": stripe},
            "alerts": {"channels": {"mail": channel}, "customers": "mail"},
            "pages": {"mail": {"server": smtp, "sender": "edge@example.com", "tls": "none"}},
            "webhooks": {"encryption": base64.b64encode(b"w" * 32).decode(), "networks": ["127.0.0.0/8"]},
        }

    def tracing(self, service: str) -> dict[str, str]:
        """Return the settings of a process that traces everything."""
        return {"endpoint": f"http://{HOST}:{self.receiver.port}", "sample": "100%", "service_name": service}

    def start_edge(self, upstream: int, residencies: dict[str, Any], hub: str, seconds: float) -> Edge:
        """Start an edge of this region on its state, with its clock ahead by this many seconds."""
        log = {"file": str(self.folder / "edge/access.log"), "mask_addresses": True}
        residency = {
            name: {**residency, **({"home": True} if name == self.name else {})}
            for name, residency in residencies.items()
        }
        edge = Edge(
            self.folder / "edge",
            upstream,
            region=f"{self.name}-1",
            workers=1,
            hub=hub,
            access_log=log,
            trusted_proxies=[f"{HOST}/32"],
            tracing=self.tracing("edge"),
            residency=residency,
            tiers=TIERS,
        )
        edge.environ = clocks.ahead(seconds)
        self.edge = edge
        return edge.start()

    def send(self, method: str, path: str, body: object = None, *, token: str = ADMIN, **fields: str) -> Answer:
        """Send a request to the collector, which must succeed."""
        answer = self.collector.send(method, path, body, token=token, **fields)
        assert answer.status < 300, (path, answer)
        return answer

    def report(self, events: list[dict[str, Any]]) -> None:
        """Report events. All of them must count."""
        receipt = self.send("POST", "/v1/events", events, token=SERVICE).json()
        assert (receipt["accepted"], receipt["rejected"]) == (len(events), [])

    @property
    def is_on_sqlite(self) -> bool:
        return str(self.collector.settings["database"]).startswith("sqlite:///")

    @property
    def database_file(self) -> Path:
        """The file of its SQLite database."""
        return Path(str(self.collector.settings["database"]).removeprefix("sqlite:///"))

    @property
    def database_name(self) -> str:
        """The name of its database at the server."""
        return str(self.collector.settings["database"]).rpartition("/")[2]

    def find_pseudonym(self, name: str) -> str:
        """Return the pseudonym of a customer."""
        return f"c-{self.send('GET', f'/v1/customers/{name}').json()['id']}"

    def run(self, *words: object, environ: dict[str, str] | None = None) -> str:
        """Run a command of edgeproxy with the clock of the year, and return its output."""
        log = self.folder / "commands" / f"{time.monotonic_ns()}.log"
        log.parent.mkdir(exist_ok=True)
        process = Process([*self.command(), *map(str, words)], log, environ=environ)
        code = process.wait(300.0)
        assert code == 0, (words, process.output)
        return process.output

    @property
    def places(self) -> list[str]:
        """The two buckets for Parquet files."""
        return ["s3://usage/hours", "s3://copies/hours"]

    def export(self, word: str) -> str:
        """Export hours to both buckets, or verify them there."""
        places = [one for place in self.places for one in ("--parquet", place)]
        return self.run(word, "-c", self.collector.file, *places, environ=self.store.environ)

    def list_objects(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield all objects of both buckets, each with its place."""
        for place in self.places:
            storage = Storage(place, self.store.environ)
            for path in storage.sizes():
                yield place, path, storage.get(path)[0]

    def keep_observed(self, month: int) -> None:
        """Record the data that a scraper and a receiver of traces got from this side in a month."""
        seen = self.folder / "observed"
        seen.mkdir(exist_ok=True)
        metrics = self.collector.get("/metrics").body
        shown = (
            b"" if self.edge is None else repr((self.edge.metrics(), self.edge.status(), self.edge.usage())).encode()
        )
        (seen / f"metrics-{month}").write_bytes(metrics + shown)
        got, self.receiver.got = self.receiver.got, []
        (seen / f"traces-{month}").write_bytes(b"\n".join(one.body for one in got))
        assert metrics, "something was scraped"
