"""Certificate files that programs replace, rewrite, rename or delete."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.supervisor.certificates import REMINDER_SECONDS, Certificates
from loadtest.testbed.authority import Authority, Pair
from loadtest.testbed.waiting import turned
from tests.support.logs import capture_logs

DAY = 86400


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(*pairs: Pair, client_ca: Path | None = None, upstream: dict[str, Any] | None = None) -> EdgeSettings:
    """A configuration that names these files."""
    tls: dict[str, Any] = {"certificates": [{"cert": str(pair.cert), "key": str(pair.key)} for pair in pairs]}
    if client_ca is not None:
        tls["client_ca"] = str(client_ca)
    listen: dict[str, Any] = {"address": "127.0.0.1:8443"}
    return EdgeSettings.model_validate(
        {
            "listen": [{**listen, "tls": tls} if pairs else listen],
            "upstreams": {"api": {"endpoints": ["https://10.0.0.1"], "tls": upstream or {}}},
            "routes": [{"path": "/*", "upstream": "api"}],
            "sha256": "",
        }
    )


class Watched:
    """Certificates after their first look, and how often they were said to have changed since."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.changes = 0
        self.certificates = Certificates(settings, self._changed)
        assert self.check()

    def _changed(self) -> None:
        self.changes += 1

    def check(self) -> bool:
        return uvloop.run(self.certificates.check())


def why(logs: list[Any]) -> list[str]:
    """Return the reasons in the logs for unusable files."""
    return [line["why"] for line in logs if "why" in line]


def test_unchanged_certificate_files_are_not_reloaded(authority: Authority) -> None:
    watched = Watched(settings(authority.issue("a.test")))
    assert not watched.check()
    assert not watched.check()


def test_certificate_watcher_without_tls_has_no_series() -> None:
    async def scene() -> None:
        certificates = Certificates(settings(), lambda: None)
        assert not await certificates.check()
        assert certificates.series() == []

    uvloop.run(scene())


def test_a_pair_that_was_renamed_into_place_is_loaded(authority: Authority) -> None:
    pair = authority.issue("a.test")
    watched = Watched(settings(pair))
    pair.replace(authority.issue("a.test"))
    assert watched.check()
    assert not watched.check()


def test_a_link_that_leads_to_another_directory_is_followed(authority: Authority, tmp_path: Path) -> None:
    """As volumes of Kubernetes secrets: a file is a link into ..data, itself a link to a directory of that day."""
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        created = authority.issue("a.test")
        created.cert.rename(tmp_path / day / "tls.crt")
        created.key.rename(tmp_path / day / "tls.key")
        # Of one size and time, so that only the file itself tells them apart.
        for name in ("tls.crt", "tls.key"):
            os.utime(tmp_path / day / name, ns=(1, 1))
    (tmp_path / "..data").symlink_to("monday")
    pair = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    for file in pair:
        file.symlink_to(f"..data/{file.name}")
    watched = Watched(settings(pair))
    (tmp_path / "..fresh").symlink_to("tuesday")
    os.replace(tmp_path / "..fresh", tmp_path / "..data")
    assert watched.check()
    assert not watched.check()


@pytest.mark.parametrize("first", [0, 1], ids=["the certificate first", "the key first"])
def test_a_pair_is_loaded_when_both_files_exist_and_a_gap_is_logged_once(authority: Authority, first: int) -> None:
    pair, new = authority.issue("a.test"), authority.issue("a.test", days=200)
    watched = Watched(settings(pair))
    old = [words for _, _, words in watched.certificates.series()]
    pair[first].write_bytes(new[first].read_bytes())
    with capture_logs() as logs:
        assert not watched.check()
        assert not watched.check()
        assert [words[0] // 100 for _, _, words in watched.certificates.series()] == [words[0] // 100 for words in old]
        pair[1 - first].write_bytes(new[1 - first].read_bytes())
        assert watched.check()
    (said,) = why(logs)
    assert said.startswith(f"{pair.key} is not the key of the certificate in {pair.cert}")
    ((name, labels, words),) = watched.certificates.series()
    assert (name, labels) == ("edge_tls_expiry_seconds", (str(pair.cert),))
    assert words[0] == pytest.approx(200 * DAY, abs=60)


def test_missing_or_broken_files_keep_the_certificate_in_use(authority: Authority) -> None:
    pair = authority.issue("a.test")
    watched = Watched(settings(pair))
    content = pair.cert.read_bytes()
    with capture_logs() as logs:
        pair.cert.unlink()
        assert not watched.check()
        pair.cert.write_bytes(content[:100])
        assert not watched.check()
        pair.cert.write_bytes(content)
        assert watched.check()  # it is another file with equal content
        assert not watched.check()
    assert [line.partition(", ")[0] for line in why(logs)] == [
        f"{pair.cert} cannot be read: No such file or directory",
        f"{pair.cert} has a certificate that cannot be read",
    ]


def test_restored_key_file_is_no_change(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("a.test")
    watched = Watched(settings(pair))
    with capture_logs() as logs:
        for _ in range(2):
            pair.key.rename(tmp_path / "away")
            assert not watched.check()
            (tmp_path / "away").rename(pair.key)
            assert not watched.check()
    assert len(why(logs)) == 2


def test_authorities_and_certificates_for_upstreams_are_watched_too(authority: Authority, tmp_path: Path) -> None:
    more = Authority(tmp_path, "more")
    own, server = authority.issue("edge.test"), authority.issue("a.test")
    tls = {"ca": str(more.file), "cert": str(own.cert), "key": str(own.key)}
    watched = Watched(settings(server, client_ca=authority.file, upstream=tls))
    for file in (authority.file, more.file):
        file.write_bytes(file.read_bytes() + Authority(tmp_path, "newer").file.read_bytes())
        assert watched.check()
        assert not watched.check()
    own.replace(authority.issue("edge.test"))
    assert watched.check()
    with capture_logs() as logs:
        more.file.write_text("")
        assert not watched.check()
    assert why(logs)[0].startswith(f"{more.file} has no certificate")
    assert {labels[0] for _, labels, _ in watched.certificates.series()} == {str(own.cert), str(server.cert)}


def test_certificate_watcher_reports_changes(authority: Authority) -> None:
    pair = authority.issue("a.test")
    changes = []

    async def scene() -> None:
        tasks = Tasks()
        watched = Certificates(settings(pair), lambda: changes.append(1))
        await watched.check()
        tasks.start("watch", watched.watch(every=0.01))
        pair.replace(authority.issue("a.test"))
        try:
            await turned(lambda: changes, "the change is told")
        finally:
            await tasks.cancel()

    uvloop.run(scene())


# ---- time


def test_seconds_until_a_certificate_expires_are_below_zero_once_it_has(authority: Authority) -> None:
    soon, gone = authority.issue("a.test", days=10), authority.issue("b.test", days=-1, age=90)
    series = {labels[0]: words[0] for _, labels, words in Watched(settings(soon, gone)).certificates.series()}
    assert series == {
        str(soon.cert): pytest.approx(10 * DAY, abs=60),
        str(gone.cert): pytest.approx(-DAY, abs=60),
    }


def test_expiring_certificate_is_logged_once_a_day(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    soon, fine = authority.issue("a.test", days=13.5), authority.issue("b.test", days=16)
    with capture_logs() as logs:
        watched = Watched(settings(soon, fine))
        watched.check()
        (line,) = logs
        assert (line["log_level"], line["file"]) == ("warning", str(soon.cert))
        assert line["certificate"].startswith("expires in 13 days, on ")
        now = time.time() + REMINDER_SECONDS
        monkeypatch.setattr(time, "time", lambda: now)
        watched.check()
        assert logs[1]["certificate"].startswith("expires in 12 days, on ")
        watched.check()
        assert len(logs) == 2
        soon.replace(authority.issue("a.test", days=90))
        watched.check()
        assert len(logs) == 2


def test_reload_preserves_the_state_of_known_files_and_watches_new_ones(authority: Authority) -> None:
    stays, goes, comes = (authority.issue(f"{name}.test") for name in ("a", "b", "c"))
    watched = Watched(settings(stays, goes))
    made = watched.certificates
    stays.cert.write_text("broken")
    goes.cert.write_text("broken")
    with capture_logs() as logs:
        assert not watched.check()
        assert len(why(logs)) == 2
        made.adopt(uvloop.run(made.consider(settings(stays, comes))))
        assert not watched.check(), "what comes was looked at, and what stays is still of no use"
    assert len(why(logs)) == 2, "nothing is said again"
    assert [labels for _, labels, _ in made.series()] == [(str(stays.cert),), (str(comes.cert),)]
    comes.cert.write_bytes(authority.issue("c.test").cert.read_bytes())
    assert not watched.check(), "its key is still to come"
