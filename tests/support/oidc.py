"""A real OpenID provider (oidc-provider, from npm), whose clients stand for people who have signed in."""

import base64
import shutil
import sys
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path

import orjson

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until

NODE = shutil.which("node")
MODULES = Path(sys.prefix) / "npm"
PROVIDER = Path(__file__).with_name("oidc_provider.mjs")
THERE = NODE is not None and (MODULES / "node_modules/oidc-provider").exists()
AUDIENCE = "https://edgeproxy"


class Provider:
    """A provider on a port of its own; it can be ended, and started again with another key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self.process: Process | None = None

    @property
    def issuer(self) -> str:
        """Its URL, as its tokens name it."""
        return f"http://{HOST}:{self.port}"

    def start(self, key_id: str = "first", redirect: str = "") -> "Provider":
        """Start it with a new key of this name; returns once it answers.

        The client `console` is sent to `redirect`, or to one of several with spaces between.
        """
        assert NODE is not None
        command = [NODE, PROVIDER, MODULES, str(self.port)]
        process = self.process = Process(
            command,
            self._folder / "oidc.log",
            environ={"KEY_ID": key_id, **({"REDIRECT": redirect} if redirect else {})},
        )
        count = process.output.count("listening\n")

        def settled() -> bool:
            return not process.running or process.output.count("listening\n") > count

        until(settled, "the provider listens", seconds=60)
        assert process.running, process.output
        return self

    def end(self) -> None:
        """End it."""
        assert self.process is not None
        self.process.stop()

    def close(self) -> None:
        """End the process if it runs, and release its port."""
        if self.process is not None and self.process.running:
            self.end()
        self._ports.close()

    def token(self, person: str) -> str:
        """An access token of a person who has just signed in."""
        connection = HTTPConnection(HOST, self.port, timeout=30)
        credentials = base64.b64encode(f"{person}:secret-of-{person}".encode()).decode()
        said = {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"}
        form = urllib.parse.urlencode({"grant_type": "client_credentials"})
        connection.request("POST", "/token", form, said)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body
        token: str = orjson.loads(body)["access_token"]
        return token
