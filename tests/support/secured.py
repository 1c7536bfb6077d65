"""A real collector that is reached over TLS alone."""

import asyncio
import http.client
import re
import socket
import ssl
from contextlib import closing
from pathlib import Path

from edgeproxy.edge.usage.answer import Reply
from edgeproxy.edge.usage.transport import HttpTransport
from edgeproxy.wire.batch import Batch, format_batch
from loadtest.testbed.authority import Authority, Pair
from loadtest.testbed.collector import EDGE, READ, Collector
from loadtest.testbed.http_client import Answer, answer_of
from loadtest.testbed.ports import HOST

NAME = "collector.test"


class Secured(Collector):
    """A collector that is reached over TLS alone, and its authority."""

    def __init__(self, folder: Path, *, clients: bool = True) -> None:
        (folder / "tls").mkdir(parents=True)
        self.authority = Authority(folder / "tls")
        self.shown = self.authority.issue(NAME, HOST)
        tls = {"cert": str(self.shown.cert), "key": str(self.shown.key)}
        if clients:
            tls["client_ca"] = str(self.authority.file)
        super().__init__(folder / "collector", f"sqlite:///{folder}/ledger.db", tls=tls)

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """As a client has it that shows this certificate."""
        created = ssl.create_default_context(cafile=self.authority.file)
        if pair is not None:
            created.load_cert_chain(*pair)
        return created

    def ask(self, path: str, token: str = READ, context: ssl.SSLContext | None = None) -> Answer:
        """A question over a connection of its own."""
        with closing(http.client.HTTPSConnection(HOST, self.port, timeout=15, context=context or self.context())) as to:
            to.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return answer_of(to.getresponse())

    def ready(self) -> bool:
        try:
            return self.ask("/readyz").status == 200
        except OSError:
            return False

    def told(self, name: str) -> float:
        """A metric without labels, or with one."""
        (value,) = re.findall(rf"^{name}(?:{{.*}})? (.*)$", self.ask("/metrics").body.decode(), re.MULTILINE)
        return float(value)

    def ship(self, batch: Batch, context: ssl.SSLContext, name: str = NAME) -> Reply:
        """As an edge does."""

        async def send() -> Reply:
            to = HttpTransport(f"https://{HOST}:{self.port}", EDGE, tls=context, server_name=name)
            try:
                return await to(batch, format_batch(batch))
            finally:
                await to.close()

        return asyncio.run(send())

    def serial(self) -> int:
        """That of the certificate which it shows now."""
        return serial_at(self.port, self.context())


def serial_at(port: int, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that is shown at a port."""
    with (
        socket.create_connection((HOST, port), timeout=15) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as wire,
    ):
        said = wire.getpeercert()
        assert said
        return int(str(said["serialNumber"]), 16)
