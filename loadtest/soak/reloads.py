"""Reloads: valid ones that change live settings, and invalid ones that may change only `/status`."""

import random
import signal
from collections.abc import Callable
from http.client import HTTPConnection
from time import monotonic, time
from typing import Any

import orjson
import yaml

from loadtest.soak.fault import FaultKind
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
        self._whole: Settings = copy_unshared(self._edge.settings)
        """The settings with all temporary customers, routes and endpoints."""
        self._gone_at: int | None = None
        """The requests that the guest endpoint had received when it was removed; None while it is configured, or never
        was.
        """

    # ---- faults

    def reload_valid(self, draw: random.Random) -> None:
        """Make one or two changes, which all workers apply by the end of the reload."""
        changes = draw.sample(list(CHANGES), draw.choice((1, 1, 2)))
        settings: Settings = copy_unshared(self._edge.settings)
        for name in changes:
            CHANGES[name](settings, self._whole, draw)
        assert self._gone_at in (None, self._guest_received()), "an endpoint is asked that was taken out"
        with self._site.record_fault(FaultKind.RELOAD, note=", ".join(changes)):
            self._hold(self._edge.settings, settings, certain=False)
            self._edge.settings.update(settings)
            self._write(settings)
            self._reload(draw, 200)
            self._assert_config_ok()
            self._hold(settings, settings, certain=True)
        (limit,) = self._edge.limits(LIMITED)
        assert limit["limit"] == int(settings["customers"][LIMITED]["limits"][0]["rate"].partition("/")[0])
        self._check_guest()

    def reload_invalid(self, draw: random.Random) -> None:
        """Write an invalid file. The edge refuses it as a whole and goes on; `/status` shows since when and why.

        The next valid file clears the error. Half of the time it comes at once, else with a later fault.
        """
        flaw = draw.choice(list(FLAWS))
        before = self._edge.status()["config"]
        with self._site.record_fault(FaultKind.BAD_RELOAD, note=flaw):
            self._write(self._edge.settings, FLAWS[flaw])
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
        self._assert_config_ok()

    # ---- their steps

    def _write(self, settings: Settings, flaw: Callable[[str], str] = lambda text: text) -> None:
        """Replace the file atomically, as an editor does."""
        text = flaw(yaml.safe_dump(settings, sort_keys=False))
        new = self._edge.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self._edge.file)

    def _reload(self, draw: random.Random, expected_status: int) -> None:
        """Reload by a request or a signal; returns once it has taken effect."""
        if draw.random() < 0.6:
            answer = self._post()
            assert answer.status == expected_status, answer
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

    def _assert_config_ok(self) -> None:
        assert self._edge.status()["config"]["error"] is None
        assert total(self._edge.metrics(), "edge_config_ok") == 1

    def _now(self) -> float:
        """Return the time of the supervisor's clock."""
        return time() + self._edge.clock

    def _hold(self, before: Settings, after: Settings, *, certain: bool) -> None:
        """Record the present customers and routes; `certain` means that every process has applied the change."""
        now = monotonic()
        for name, is_configured in IS_CONFIGURED.items():
            if certain or is_configured(before) != is_configured(after):
                self._site.held[name].turn(now, is_configured(after) if certain else None)

    def _guest_received(self) -> int:
        return self._site.tallies[GUEST].total()

    def _check_guest(self) -> None:
        """Require that an added endpoint gets requests, and a removed one none, after running requests have ended."""
        if len(self._edge.settings["upstreams"][API]["endpoints"]) == len(self._site.services):
            self._gone_at = None
            before = self._guest_received()
            until(lambda: self._guest_received() > before, "the new endpoint is asked")
        elif self._gone_at is None:
            self._site.go_on(100)
            self._gone_at = self._guest_received()


def copy_unshared(settings: Settings) -> Settings:
    """Return a copy in which no two places share an object, because YAML would write them as aliases."""
    copied: Settings = orjson.loads(orjson.dumps(settings))
    return copied


# ---- changes


def change_limit(settings: Settings, _: Settings, draw: random.Random) -> None:
    """Set another rate for the customer that has one."""
    limit = settings["customers"][LIMITED]["limits"][0]
    limit["rate"] = draw.choice([rate for rate in LIMITS if rate != limit["rate"]])


def toggle_customer(settings: Settings, whole: Settings, _: random.Random) -> None:
    """Add a customer, or remove it with its key."""
    if settings["customers"].pop(COMER, None) is None:
        settings["customers"][COMER] = whole["customers"][COMER]
        settings["keys"].append(key_line(COMER))
    else:
        settings["keys"].remove(key_line(COMER))


def toggle_route(settings: Settings, whole: Settings, _: random.Random) -> None:
    """Add or remove a route."""
    (one,) = [route for route in whole["routes"] if route["name"] == DETOUR]
    if one in settings["routes"]:
        settings["routes"].remove(one)
    else:
        settings["routes"].insert(0, one)


def toggle_endpoint(settings: Settings, whole: Settings, _: random.Random) -> None:
    """Add or remove an endpoint."""
    (*lasting, guest), now = whole["upstreams"][API]["endpoints"], settings["upstreams"][API]["endpoints"]
    settings["upstreams"][API]["endpoints"] = lasting if guest in now else [*lasting, guest]


CHANGES: dict[str, Callable[[Settings, Settings, random.Random], None]] = {
    "limit": change_limit,
    "customer": toggle_customer,
    "route": toggle_route,
    "endpoint": toggle_endpoint,
}
IS_CONFIGURED: dict[str, Callable[[Settings], bool]] = {
    COMER: lambda settings: COMER in settings["customers"],
    DETOUR: lambda settings: any(route["name"] == DETOUR for route in settings["routes"]),
}
FLAWS: dict[str, Callable[[str], str]] = {
    "no YAML": lambda text: text + "routes: [\n",
    "an unknown field": lambda text: text + "routs: []\n",
    "an unknown upstream": lambda text: text.replace(f"upstream: {API}", "upstream: nowhere", 1),
    "no rate": lambda text: text.replace("/10s", "/fortnight", 1),
    "half a file": lambda text: text[: text.index("upstreams:")],
}
