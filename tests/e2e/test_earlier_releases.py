"""Each release's state directory and ledger, as its own edge and collector left them, go on with the version of today.

A file in tests/releases/ is what one edge and one collector of a release left: 7 requests of the customer acme in the
ledger, 5 sealed in the spool, and 4 in the tables alone, since the edge was killed. It was made by running the release.
"""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgeproxy.edge.usage.identity import StateLocation
from loadtest.testbed.collector import EDGE, Collector, sha256
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.process import ROOT
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

RELEASES = sorted((ROOT / "tests" / "releases").glob("*.tar.xz"))
KEY = "ek_old"
LEFT = {"in the ledger": 7, "in the spool": 5, "in the tables": 4}


def unpack(release: Path, folder: Path) -> None:
    """Put the files of a release where they are not a copy: where the edge left them."""
    shutil.unpack_archive(release, folder)
    state = folder / "state"
    identity = json.loads((state / "identity.json").read_text())
    identity |= StateLocation.from_path(state)._asdict()
    (state / "identity.json").write_text(json.dumps(identity))


def test_there_is_each_release_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = [line.split("]")[0][4:] for line in changelog.splitlines() if line.startswith("## [")][1:]
    assert sorted(released) == [path.name.removesuffix(".tar.xz") for path in RELEASES]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_what_a_release_has_counted_is_counted_once_by_that_of_today(release: Path, tmp_path: Path) -> None:
    unpack(release, tmp_path)
    with ExitStack() as ends:
        upstream = Upstream(tmp_path / "upstream")
        ends.callback(upstream.stop)
        collector = Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db")
        ends.callback(collector.close)
        edge = Edge(
            tmp_path,
            upstream.port,
            region="eu-west",
            workers=1,
            tables={"customers": 64, "addresses": 64},
            customers={"acme": {"tier": "free"}},
            keys=[{"sha256": sha256(KEY), "customer": "acme"}],
            tiers={"free": {"quotas": [{"meter": "requests", "per": "month", "included": 1000, "cap": "hard"}]}},
            usage={"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE, "every": "1s"},
        )
        ends.callback(edge.close)
        collector.start()
        assert counted(collector) == LEFT["in the ledger"]
        edge.start()
        for _ in range(3):
            assert ask(edge.port, "/x", key=KEY).status == 200
        until(lambda: counted(collector) >= sum(LEFT.values()) + 3, "all is shipped")
        edge.end()
        assert counted(collector) == sum(LEFT.values()) + 3
        (name,) = collector.edges()
        assert name == json.loads((tmp_path / "state" / "identity.json").read_text())["id"]
        collector.end()


def counted(collector: Collector) -> int:
    """Return the requests of acme in the ledger."""
    rows = collector.usage(by="customer", meter="requests")["rows"]
    return sum(row["value"] for row in rows if row["customer"] == "acme")
