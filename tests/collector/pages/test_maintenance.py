"""Planned maintenance: announced, changed and cancelled in the console, mailed, and begun and ended by the clock."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.pages.incident_feed import render_feed
from edgeproxy.collector.pages.maintenance import (
    SECONDS_MAX,
    TELL_SECONDS,
    Plan,
    at_time,
    compute_state,
    find_untold,
    list_days,
    require_usable,
)
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.http_client import ask
from loadtest.testbed.waiting import until
from tests.collector.pages.test_subscriptions import Stage, token_in
from tests.support.mailbox import text_of

NOW = 100 * DAY


def planned(begins: int, ends: int, *regions: str, state: str = "scheduled") -> Any:
    times = {"begins_at": format_timestamp(begins * 1000), "ends_at": format_timestamp(ends * 1000)}
    return {"id": "m", "title": "t", "regions": list(regions), "state": state, "updates": [], **times}


def test_feed_keeps_spaces_of_all_languages_and_no_control_character() -> None:
    update = {"at": format_timestamp(NOW * 1000), "state": "scheduled", "message": "de 14\xa0h\u202f30\x00\x1f"}
    feed = render_feed("Name", "https://example.com", [], [{**planned(NOW, NOW + 60), "updates": [update]}])
    assert "de 14\xa0h\u202f30\ufffd\ufffd<" in feed.decode()


def test_maintenance_state_follows_the_clock() -> None:
    one = planned(NOW, NOW + 60)
    states = [at_time(one, now)["state"] for now in (NOW - 1, NOW, NOW + 59, NOW + 60)]
    assert states == ["scheduled", "in_progress", "in_progress", "completed"]
    assert at_time({**one, "state": "cancelled"}, NOW)["state"] == "cancelled"
    assert compute_state(Plan(NOW, NOW + 60), True, NOW + 99) == "cancelled"


def test_maintenance_marks_each_day_of_its_regions() -> None:
    done = planned(NOW - 60, NOW + DAY, "eu", state="completed")
    everywhere = planned(NOW - 3 * DAY, NOW - 3 * DAY + 1, state="in_progress")
    others = [planned(NOW, NOW + 60, state=state) for state in ("scheduled", "cancelled")]
    days = list_days([done, everywhere, *others], ["eu", "us"])
    assert days == {("eu", NOW - DAY), ("eu", NOW), ("eu", NOW - 3 * DAY), ("us", NOW - 3 * DAY)}


@pytest.mark.parametrize(
    ("begins", "ends", "begun"),
    [
        (NOW - 61, NOW + 60, None),  # Downtime that was is not called planned afterwards.
        (NOW, NOW, None),
        (NOW + 60, NOW + 60, None),
        (NOW, NOW + SECONDS_MAX + 1, None),
        (NOW + 60, NOW + 90, Plan(NOW - 60, NOW + 60)),
        (NOW - 60, NOW - 1, Plan(NOW - 60, NOW + 60)),
    ],
)
def test_times_that_cannot_be_are_refused(begins: int, ends: int, begun: Plan | None) -> None:
    with pytest.raises(ChangeRejectedError):
        require_usable(Plan(begins, ends), NOW, begun)
    require_usable(Plan(NOW - 60, NOW + 61), NOW, Plan(NOW - 60, NOW + 60))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with closing(Stage(tmp_path)) as made:
        yield made


@pytest.mark.parametrize(
    ("told", "now", "untold"),
    [
        (["announced"], NOW - 1, None),
        (["announced"], NOW, "begun"),
        (["begun", "announced"], NOW + 59, None),
        (["begun", "announced"], NOW + 60, "ended"),
        (["announced"], NOW + 60, "ended"),  # No collector ran meanwhile: that it has begun is no news any more.
        (["ended", "begun", "announced"], NOW + 61, None),
        (["begun", "announced"], NOW + 60 + TELL_SECONDS, None),
        (["cancelled", "announced"], NOW + 1, None),
    ],
)
def test_maintenance_start_and_end_are_announced_once_and_in_time(
    told: list[str], now: int, untold: str | None
) -> None:
    assert find_untold(Plan(NOW, NOW + 60), told, now) == untold


def test_subscribers_are_mailed_each_change_of_a_maintenance(stage: Stage) -> None:
    assert stage.subscribe("ann@example.org") == 200
    assert stage.follow("/status/confirm", token_in(text_of(stage.mailbox.wait_for(1)))) == 200

    def wait_for_mail(words: str) -> str:
        until(lambda: any(words in text_of(mail) for mail in stage.mailbox.mails), f"a mail says {words}")
        return next(text for mail in stage.mailbox.mails if words in (text := text_of(mail)))

    collector, now = stage.collector, int(time.time())
    body = {"title": "New <disks>", "message": "Seconds of errors."}
    later = collector.send("POST", "/v1/maintenance", body | times(now + 3600, now + 7200)).json()
    assert "From " in wait_for_mail("Maintenance is planned")
    updates = f"/v1/maintenance/{later['id']}/updates"
    cancelled = {"state": "cancelled", "message": "Not today."}
    moved = {"state": "changed", "message": "An hour later.", **times(now + 7200, now + 9000)}
    assert collector.send("POST", updates, moved).json()["begins_at"] == format_timestamp((now + 7200) * 1000)
    wait_for_mail("An hour later.")
    assert collector.send("POST", updates, cancelled).json()["state"] == "cancelled"
    wait_for_mail("Maintenance is cancelled")
    assert collector.send("POST", updates, moved).status == 409
    resolved = cancelled | {"state": "resolved"}
    assert collector.send("POST", f"/v1/incidents/{later['id']}/updates", resolved).status == 404
    assert stage.collector.get("/v1/incidents", token=ADMIN).json()["incidents"] == []

    now = int(time.time())
    created = collector.send("POST", "/v1/maintenance", body | times(now, now + 3600))
    assert (created.status, created.json()["state"]) == (201, "in_progress")
    updates = f"/v1/maintenance/{created.json()['id']}/updates"
    assert collector.send("POST", updates, cancelled).status == 409, "a started maintenance cannot be cancelled"
    wait_for_mail("Maintenance has begun")
    until(lambda: b"Maintenance has begun" in ask(collector.port, "/status").body, "the page tells of it")
    page = ask(collector.port, "/status").body.decode()
    assert "Planned maintenance is under way." in page
    assert "New &lt;disks&gt;" in page
    states = [one["state"] for one in ask(collector.port, "/status.json").json()["maintenance"]]
    assert states == ["cancelled", "in_progress"]
    assert b"Not today." in ask(collector.port, "/status.atom").body
    ending = {"state": "changed", "message": "Done sooner.", "ends_at": times(0, int(time.time()) + 3)["ends_at"]}
    assert collector.send("POST", updates, ending).status == 201
    wait_for_mail("Maintenance is over")


def times(begins: int, ends: int) -> dict[str, str]:
    return {"begins_at": format_timestamp(begins * 1000), "ends_at": format_timestamp(ends * 1000)}
