"""Handling alerts over the API: permissions, the record of actions, and separation of operators and customers."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.base.timestamps import format_timestamp
from loadtest.testbed.collector import ADMIN, OWN, READ, Collector

WEEK_MS = 7 * 86_400_000


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    folder: Path = tmp_path_factory.mktemp("handled")
    with closing(Collector(folder, f"sqlite:///{folder}/ledger.db")) as made:
        made.start()
        made.execute(
            "INSERT INTO alerts (key, kind, severity, customer, title, details, at, routed_at)"
            " VALUES (?, 'quota_reached', 'warn', ?, ?, '{}', 1000, 1)",
            *(
                (key, name, f"it is {key}")
                for key, name in (("a", "bound"), ("b", "bolt"), ("c", "bound"), ("d", None))
            ),
        )
        yield made


def handled(collector: Collector, number: int, token: str) -> dict[str, Any]:
    (alert,) = [alert for alert in collector.get("/v1/alerts", token=token).json()["alerts"] if alert["id"] == number]
    found: dict[str, Any] = alert["handling"]
    return found


def test_acknowledgement_of_an_alert_records_actor_and_reason_once_a_side(collector: Collector) -> None:
    done = collector.send("POST", "/v1/alerts/1/acknowledge", {"why": "We look into it."}, token=ADMIN)
    assert done.status == 200, done
    assert "deliveries" in done.json()
    assert (handled(collector, 1, ADMIN)["acknowledged_by"], handled(collector, 1, OWN)["acknowledged_by"]) == (
        done.json()["handling"]["acknowledged_by"],
        None,
    )
    again = collector.send("POST", "/v1/alerts/1/acknowledge", {}, token=ADMIN)
    assert (again.status, "has acknowledged it" in again.json()["detail"]) == (409, True)
    own = collector.send("POST", "/v1/alerts/1/acknowledge", {}, token=OWN)
    assert (own.status, "deliveries" in own.json()) == (200, False)
    entries = collector.get("/v1/audit", token=ADMIN, action="alert.acknowledge", target="1").json()["entries"]
    actors = {one.json()["handling"]["acknowledged_by"] for one in (done, own)}
    assert ({entry["actor"] for entry in entries}, len(entries)) == (actors, 2)


def test_customer_token_handles_only_its_own_alerts(collector: Collector) -> None:
    for step, body in (("acknowledge", {}), ("assign", {"to": "me"}), ("mute", {"until": "2027-01-01", "why": "no"})):
        for number in (2, 4, 999):
            assert collector.send("POST", f"/v1/alerts/{number}/{step}", body, token=OWN).status == 403
        assert collector.send("POST", f"/v1/alerts/3/{step}", body, token=READ).status == 403
        for number in ("999", "0", "x", "1e3"):
            assert collector.send("POST", f"/v1/alerts/{number}/{step}", body, token=ADMIN).status in (404, 422)
    assert handled(collector, 2, ADMIN)["assigned_to"] is None


def test_an_alert_is_somebodys_and_its_kind_is_muted_until_a_time(collector: Collector) -> None:
    assert collector.send("POST", "/v1/alerts/3/assign", {"to": "dev@acme.example"}, token=OWN).status == 200
    assert collector.send("POST", "/v1/alerts/3/assign", {"to": "a\nb"}, token=OWN).status == 422, "no line breaks"
    assert handled(collector, 3, OWN)["assigned_to"] == "dev@acme.example"
    now = round(time.time() * 1000)
    until = format_timestamp(now + WEEK_MS)
    muted = {"until": until, "why": "a load test"}
    assert collector.send("POST", "/v1/alerts/3/mute", muted, token=OWN).status == 200
    assert handled(collector, 1, OWN)["muted_until"] == until, "of the kind, not of the one alert"
    assert (handled(collector, 1, ADMIN)["muted_until"], handled(collector, 2, ADMIN)["muted_until"]) == (None, None)
    far = {"until": format_timestamp(now + 20 * WEEK_MS), "why": "for ever"}
    assert collector.send("POST", "/v1/alerts/3/mute", far, token=OWN).status == 422
    assert collector.send("POST", "/v1/alerts/3/mute", muted, token=ADMIN).status == 422, (
        "a paging alert may be muted for 2 days at most"
    )
    short = {"until": format_timestamp(now + WEEK_MS // 4), "why": "a weekend"}
    assert collector.send("POST", "/v1/alerts/3/mute", short, token=ADMIN).status == 200
    ended = {"until": format_timestamp(now), "why": "ended"}
    assert collector.send("POST", "/v1/alerts/1/mute", ended, token=OWN).status == 200
    assert handled(collector, 3, OWN)["muted_until"] is None


def test_alert_list_filters_by_acknowledgement_of_the_own_side(collector: Collector) -> None:
    def numbers(token: str, **query: str) -> list[int]:
        return [alert["id"] for alert in collector.get("/v1/alerts", token=token, **query).json()["alerts"]]

    assert numbers(ADMIN, acknowledged="true") == [1]
    assert numbers(ADMIN, acknowledged="false") == [4, 3, 2]
    assert numbers(ADMIN, acknowledged="false", order="oldest", cursor="2") == [3, 4]
    assert (numbers(OWN, acknowledged="true"), numbers(OWN, acknowledged="false")) == ([1], [3])
    collector.send("POST", "/v1/alerts/3/acknowledge", {}, token=OWN)
    assert numbers(OWN, acknowledged="false") == []
    assert 3 in numbers(ADMIN, acknowledged="false"), "an acknowledgement of the customer does not count for operators"
