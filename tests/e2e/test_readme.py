"""The first five minutes of the README: its lines lead from nothing to a request with a customer's key, as written."""

import os
import re
import sys
from pathlib import Path

import pytest

from loadtest.testbed.ports import Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

README = (ROOT / "README.md").read_text()
SECTION = README.partition("\n## The first five minutes\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PORTS = ("8080", "9090", "9100", "9001")
PROXIES = ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy")


@pytest.mark.timeout(300)
def test_the_first_five_minutes_lead_to_a_request_of_a_customer(tmp_path: Path) -> None:
    ports = Ports(len(PORTS))
    text = SECTION
    for port, free in zip(PORTS, ports.numbers, strict=True):
        text = re.sub(rf"\b{port}\b", str(free), text)
    service, setup, start, requests = BLOCK.findall(text)
    # The files have the usual ports, which others may use here; of a token such digits can be a part.
    written, check = setup.split("\n", 1)
    ports_of_files = "; ".join(rf"s/:{port}\b/:{free}/" for port, free in zip(PORTS, ports.numbers, strict=True))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    # In one shell, as a reader does it; the last lines are repeated, as a reader would, until the edge has the key.
    script = [
        "set -eu",
        f"cd {tmp_path}",
        service,
        written,
        f"sed -i '{ports_of_files}' *.yaml operator.env",
        check,
        start,
        "trap 'kill $(jobs -p)' TERM",
        "declare -p EDGEPROXY_TOKEN KEY > shell && mv shell ready",
        "wait; wait || :",
    ]
    unset = [word for name in PROXIES for word in ("-u", name)]
    environ = {**os.environ, "EDGEPROXY_COLLECTOR": f"http://127.0.0.1:{ports.numbers[2]}"}
    shell = Process(["/usr/bin/env", *unset, "bash", "-c", "\n".join(script)], tmp_path / "log", environ=environ)
    try:
        folder = tmp_path / "var/first"
        until(lambda: not shell.running or (folder / "ready").exists(), "edge, collector and key", seconds=150)
        assert shell.running, shell.output
        for line, shows in zip(requests.splitlines(), (CUSTOMER, LIMITS, USAGE), strict=True):
            log = tmp_path / f"log-{shows[:3]}"

            def answered(line: str = line, log: Path = log, shows: str = shows) -> bool:
                log.unlink(missing_ok=True)
                again = f"cd {folder}; . ./ready; {line}"
                asked = Process(["/usr/bin/env", *unset, "bash", "-c", again], log, environ=environ)
                return asked.wait(20) == 0 and re.search(shows, asked.output) is not None

            until(answered, f"{line}: {shows}", step=0.5)
    finally:
        shell.stop(60)
        ports.close()


CUSTOMER = r'HTTP/1\.1 200 OK(?s:.*)RateLimit: "pro";r=\d+;(?s:.*)an order'
LIMITS = r"pro +1 +600 +599 "
USAGE = r'"requests","value":1\b'
