"""Reloads: good ones that change live settings, and bad ones that may change only `/status`."""

import random
import signal
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, time
from typing import Any

import orjson
import yaml

from loadtest.soak.fault import Deed
from loadtest.soak.kinds import API, COMER, DETOUR, LIMITED
from loadtest.soak.site import GUEST, LIMITS, Site
from loadtest.testbed.customers import key_line
from loadtest.testbed.edge import total
from loadtest.testbed.http_client import PATIENCE, Answer, answer_of
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until

Settings = dict[str, Any]


class Reloads:
    """The edge's configuration file, which is rewritten again and again."""

    def __init__(self, site: Site) -> None:
        self._site, self._edge = site, site.edge
        self._whole: Settings = unshared(self._edge.settings)
        """The settings with all temporary customers, routes and endpoints."""
        self._gone_at: int | None = None
        """The requests that the guest endpoint had received when it was removed; None while it is configured, or never
        was.
        """

    # ---- deeds

    def good(self, draw: random.Random) -> None:
        """Make one or two changes, which all workers apply by the end of the reload."""
        changes = draw.sample(list(CHANGES), draw.choice((1, 1, 2)))
        settings: Settings = unshared(self._edge.settings)
        for name in changes:
            CHANGES[name](settings, self._whole, draw)
        assert self._gone_at in (None, self._guest_received()), "an endpoint is asked that was taken out"
        with self._site.deed(Deed.RELOAD, note=", ".join(changes)):
            self._hold(self._edge.settings, settings, certain=False)
            self._edge.settings.update(settings)
            self._write(settings)
            self._reload(draw, 200)
            self._assert_well()
            self._hold(settings, settings, certain=True)
        (limit,) = self._edge.limits(LIMITED)
        assert limit["limit"] == int(settings["customers"][LIMITED]["limits"][0]["rate"].partition("/")[0])
        self._look_for_guest()

    def bad(self, draw: random.Random) -> None:
        """Write an invalid file. It is refused as a whole, `/status` shows since when and why, and the next good one
        clears it.
        """
        what = draw.choice(list(FLAWS))
        before = self._edge.status()["config"]
        with self._site.deed(Deed.BAD_RELOAD, note=what):
            self._write(self._edge.settings, FLAWS[what])
            began = self._now()
            self._reload(draw, 422)
            shown = self._edge.status()["config"]
            assert shown["sha256"] == before["sha256"]
            since = began - 1 if before["error"] is None else before["error"]["since"]
            assert since <= shown["error"]["since"] <= (self._now() if before["error"] is None else since), shown
            assert shown["error"]["errors"], shown
            assert total(self._edge.metrics(), "edge_config_ok") == 0
            self._site.go_on(50)
            assert self._edge.status()["config"]["error"] == shown["error"]
        if draw.random() < 0.5:
            self.repair()

    def repair(self) -> None:
        """Restore the served file, and reload."""
        self._write(self._edge.settings)
        answer = self._post()
        assert answer.status == 200, answer
        self._assert_well()

    # ---- parts of deeds

    def _write(self, settings: Settings, flaw: Callable[[str], str] = lambda text: text) -> None:
        """Replace the file atomically, as an editor does."""
        text = flaw(yaml.safe_dump(settings, sort_keys=False))
        fresh = self._edge.file.with_suffix(".fresh")
        fresh.write_text(text)
        Path(fresh).replace(self._edge.file)

    def _reload(self, draw: random.Random, wanted: int) -> None:
        """Reload by a request or a signal; returns once it has taken effect."""
        if draw.random() < 0.6:
            answer = self._post()
            assert answer.status == wanted, answer
            return
        before = self._edge.status()["config"]
        self._edge.supervisor.send_signal(signal.SIGHUP)
        until(lambda: self._edge.status()["config"] != before, "the signal has had its effect")

    def _post(self) -> Answer:
        connection = HTTPConnection(HOST, self._edge.admin, timeout=PATIENCE)
        try:
            connection.request("POST", "/reload")
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def _assert_well(self) -> None:
        assert self._edge.status()["config"]["error"] is None
        assert total(self._edge.metrics(), "edge_config_ok") == 1

    def _now(self) -> float:
        """Return the time of the supervisor's clock."""
        return time() + self._edge.clock

    def _hold(self, before: Settings, after: Settings, *, certain: bool) -> None:
        """Record the present customers and routes; `certain` means that every process has applied the change."""
        now = monotonic()
        for name, there in THERE.items():
            if certain or there(before) != there(after):
                self._site.held[name].turn(now, there(after) if certain else None)

    def _guest_received(self) -> int:
        return self._site.tallies[GUEST].total()

    def _look_for_guest(self) -> None:
        """Require that an added endpoint gets requests, and a removed one none, after running requests have ended."""
        if len(self._edge.settings["upstreams"][API]["endpoints"]) == len(self._site.services):
            self._gone_at = None
            before = self._guest_received()
            until(lambda: self._guest_received() > before, "the new endpoint is asked")
        elif self._gone_at is None:
            self._site.go_on(100)
            self._gone_at = self._guest_received()


def unshared(settings: Settings) -> Settings:
    """Return a copy without shared parts, because YAML would write those as aliases."""
    copied: Settings = orjson.loads(orjson.dumps(settings))
    return copied


# ---- changes


def other_limit(settings: Settings, _: Settings, draw: random.Random) -> None:
    """Set another rate for the customer that has one."""
    limit = settings["customers"][LIMITED]["limits"][0]
    limit["rate"] = draw.choice([rate for rate in LIMITS if rate != limit["rate"]])


def customer(settings: Settings, whole: Settings, _: random.Random) -> None:
    """Add a customer, or remove it with its key."""
    if settings["customers"].pop(COMER, None) is None:
        settings["customers"][COMER] = whole["customers"][COMER]
        settings["keys"].append(key_line(COMER))
    else:
        settings["keys"].remove(key_line(COMER))


def route(settings: Settings, whole: Settings, _: random.Random) -> None:
    """Add or remove a route."""
    (one,) = [each for each in whole["routes"] if each["name"] == DETOUR]
    if one in settings["routes"]:
        settings["routes"].remove(one)
    else:
        settings["routes"].insert(0, one)


def endpoint(settings: Settings, whole: Settings, _: random.Random) -> None:
    """Add or remove an endpoint."""
    (*lasting, guest), now = whole["upstreams"][API]["endpoints"], settings["upstreams"][API]["endpoints"]
    settings["upstreams"][API]["endpoints"] = lasting if guest in now else [*lasting, guest]


CHANGES: dict[str, Callable[[Settings, Settings, random.Random], None]] = {
    "limit": other_limit,
    "customer": customer,
    "route": route,
    "endpoint": endpoint,
}
THERE: dict[str, Callable[[Settings], bool]] = {
    COMER: lambda settings: COMER in settings["customers"],
    DETOUR: lambda settings: any(each["name"] == DETOUR for each in settings["routes"]),
}
FLAWS: dict[str, Callable[[str], str]] = {
    "no YAML": lambda text: text + "routes: [\n",
    "an unknown field": lambda text: text + "routs: []\n",
    "an unknown upstream": lambda text: text.replace(f"upstream: {API}", "upstream: nowhere", 1),
    "no rate": lambda text: text.replace("/10s", "/fortnight", 1),
    "half a file": lambda text: text[: text.index("upstreams:")],
}
