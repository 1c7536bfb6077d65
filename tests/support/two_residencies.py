"""Collectors of two residencies; one of them has the sums of the other."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import COMMAND, Collector, sha256
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.visitor import Visitor

SUMS = "sums-token"
PLANTED = "planted-us-001"
METERS: dict[str, Any] = {"requests": {"count": "requests"}, "rare": {"count": "requests"}}
YESTERDAY = int(time.time()) // 86400 * 86400 - 43200
PAGES = {"mail": {"server": f"{HOST}:1", "sender": "edge@example.com", "tls": "none"}}
LINK = re.compile(r"http\S+/sign-in/link\?token=\S+")


@contextmanager
def two_residencies(folder: Path, command: tuple[str, ...] = COMMAND) -> Iterator[dict[str, Collector]]:
    """The collectors of us, and of eu, which fetches the sums of us.

    us has six customers with usage of yesterday; one of them is the only user of its meter. `command` starts the
    collector of eu, whose pages are tested.
    """
    with ExitStack() as ends:

        def start(name: str, **more: Any) -> Collector:
            database = f"sqlite:///{folder}/{name}/ledger.db"
            common = {"residency": name, "privacy": {"pseudonyms": "true"}, "meters": METERS, "customers": {}}
            return ends.enter_context(closing(Collector(folder / name, database, **common, **more)))

        us = start("us")
        us.settings["tokens"].append({"name": "eu-console", "sha256": sha256(SUMS), "role": "aggregates"})
        us.start()
        chain = Chain(region="us-1", since=YESTERDAY)
        for number in range(6):
            name = PLANTED if not number else f"customer-{number}"
            told = {"name": name, "tier": "basic", "external_id": f"crm-{name}", "metadata": {"note": f"of {name}"}}
            id_ = us.send("POST", "/v1/customers", told).json()["id"]
            rows = [(f"c-{id_}", "requests", "v1", 10 + number)]
            rows += [(f"c-{id_}", "rare", "v1", 77)] if not number else []
            assert us.post(chain.next(*rows)).status == 200
        others = {
            "us": {"url": f"http://{HOST}:{us.port}", "token": SUMS},
            "ap": {"url": f"http://{HOST}:1", "token": SUMS},
        }
        eu = start("eu", residencies=others, pages=PAGES)
        eu.command = command
        eu.start()
        assert eu.post(Chain(region="us-1", since=YESTERDAY).next(("alone", "requests", "v1", 5))).status == 200
        yield {"eu": eu, "us": us}


def sign_in_operator(collector: Collector) -> Visitor:
    """Return an operator who signed in by the link that a collector printed."""
    until(lambda: LINK.search(collector.output), "the link of operators is printed")
    link = LINK.search(collector.output)
    assert link is not None
    visitor = Visitor(f"http://{HOST}:{collector.port}")
    visitor.get(link[0])
    visitor.send("/sign-in/link")
    return visitor
