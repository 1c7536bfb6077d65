"""The pages of `edgeproxy status` and `edgeproxy limits`."""

from copy import deepcopy
from typing import Any

import pytest

from edgeproxy.edge.supervisor.overview import format_duration, render_limits, render_overview

STATUS: dict[str, Any] = {
    "region": "eu-west",
    "version": "1.2.3",
    "build": "compiled",
    "phase": "serving",
    "config": {"sha256": "ab" * 32, "loaded_at": 0, "error": None, "needs_restart": []},
    "workers": [
        {
            "place": place,
            "pid": pid,
            "started_at": 60.5,
            "connections": connections,
            "resident_bytes": 45 << 20,
            "descriptors": connections + 20,
        }
        for place, pid, connections in ((0, 99, 5), (1, 12345, 12000))
    ],
    "upstreams": {
        "api": [
            {
                "url": "http://a.test:80",
                "why": "",
                "addresses": [
                    {"address": "10.0.0.1", "up": True, "why": ""},
                    {"address": "10.0.0.2", "up": False, "why": "status 500"},
                ],
            },
            {"url": "http://gone.test:80", "why": "Name or service not known", "addresses": []},
        ],
        "other": [{"url": "http://b", "why": "", "addresses": [{"address": "10.0.0.3", "up": True, "why": ""}]}],
    },
    "tables": {"customers": {"used": 1500, "rows": 200000}, "usage": {"used": 7, "rows": 10}},
    "hub": {"url": "memory://", "state": "up", "age_s": 0},
    "directory": None,
    "usage": {
        "unshipped": 3,
        "oldest_s": 0,
        "batches": 0,
        "edge": None,
        "watermark": None,
        "spool_bytes": 0,
        "shipping": {"state": "off", "why": "", "since": 0.0},
        "sealing": None,
        "aside": [],
    },
}

PAGE = """\
edge    eu-west, serving, edgeproxy 1.2.3, compiled
config  abababababab, loaded 1970-01-01 00:00:00 UTC
hub     memory://, up
usage   3 unshipped, 0 bytes in the spool

worker    pid  connections  memory  descriptors  since
     0     99            5  45 MiB           25  1970-01-01 00:01:00 UTC
     1  12345        12000  45 MiB        12020  1970-01-01 00:01:00 UTC

upstream  up  down  trouble
api        1     1  http://gone.test:80: Name or service not known
                    http://a.test:80 at 10.0.0.2: status 500
other      1     0

table      rows      of  used
customers  1500  200000  1%
usage         7      10  70%"""


def changed(**changes: Any) -> dict[str, Any]:
    return deepcopy(STATUS) | changes


def test_a_page_shows_all_there_is() -> None:
    assert render_overview(STATUS) == PAGE


def test_overview_shows_configuration_problems() -> None:
    config = {
        "sha256": "cd" * 32,
        "loaded_at": 0,
        "error": {"since": 60, "at": 61, "result": "refused", "errors": ["edge.yaml:1: a: b, c", "d"]},
        "needs_restart": ["listen", "region"],
    }
    assert (
        "config  cdcdcdcdcdcd, loaded 1970-01-01 00:00:00 UTC\n"
        "        its files have changed and are not served, since 1970-01-01 00:01:00 UTC:\n"
        "        edge.yaml:1: a: b, c\n"
        "        d\n"
        "        waits for a restart: listen, region\n"
        "hub     memory://, up\n"
    ) in render_overview(changed(config=config))


def test_overview_shows_usage_shipping_and_its_problems() -> None:
    usage = {
        "unshipped": 1234,
        "unshipped_by_meter": {"egress": 1200, "ingress": 0, "requests": 34},
        "oldest_s": 90,
        "batches": 5,
        "edge": "edge-1",
        "watermark": 40,
        "spool_bytes": 4096,
        "shipping": {"state": "waiting", "why": "nobody answers", "since": 60.2},
        "sealing": {"why": "No space left on device", "since": 120.0},
        "aside": ["aside.1", "aside.2"],
    }
    assert (
        "usage   1234 unshipped, the oldest for 1 min 30 s, 4096 bytes in the spool\n"
        "        1200 egress, 34 requests\n"
        "        edge-1, batch 40 acknowledged, 5 wait\n"
        "        shipping is waiting since 1970-01-01 00:01:00 UTC: nobody answers\n"
        "        not sealed since 1970-01-01 00:02:00 UTC: No space left on device\n"
        "        set aside: aside.1, aside.2; see `edgeproxy spool adopt` and `discard`\n"
    ) in render_overview(changed(usage=usage))


def test_overview_without_workers_has_no_worker_table() -> None:
    page = render_overview(changed(workers=[], upstreams={}))
    assert "worker" not in page
    assert "upstream" not in page


def test_an_edge_of_before_does_not_say_its_build() -> None:
    status = changed()
    del status["build"]
    assert render_overview(status).splitlines()[0] == "edge    eu-west, serving, edgeproxy 1.2.3"


@pytest.mark.parametrize("missing", [each for each in STATUS if each != "build"])
def test_incomplete_status_raises_lookup_error(missing: str) -> None:
    status = changed()
    del status[missing]
    with pytest.raises(LookupError):
        render_overview(status)


LINE: dict[str, Any] = {
    "name": "basic",
    "scope": "customer",
    "limit": 60,
    "window_s": 60.0,
    "used": 3,
    "remaining": 57,
    "reset_s": 62,
    "mode": "enforce",
    "algorithm": "sliding_window",
}

POLICIES: list[dict[str, Any]] = [
    LINE,
    {**LINE, "name": "each", "scope": "key", "algorithm": "token_bucket", "burst": 100, "key": "5feceb66"},
    {**LINE, "name": "open", "scope": "ip", "used": None, "remaining": None, "reset_s": None, "route": "export"},
    {**LINE, "name": "concurrency", "window_s": 0, "limit": 4, "used": 4, "remaining": 0, "reset_s": 1}
    | {"algorithm": "concurrency"},
    {**LINE, "name": "requests-month", "window_s": 2678400.0, "limit": 100000, "reset_s": 1702000}
    | {"algorithm": "quota", "cap": "soft"},
    {**LINE, "name": "trial", "mode": "shadow", "used": 0, "reset_s": 0, "remaining": 60},
]

LIMITS = """\
policy          used   limit  left      reset  window   scope     of                          how
basic              3      60    57  1 min 2 s  1 min    customer                              sliding_window
each               3      60    57  1 min 2 s  1 min    key       key 5feceb66                token_bucket of 100
open                      60                   1 min    ip        route export, each address  sliding_window
concurrency        4       4     0        1 s  at once  customer                              concurrency
requests-month     3  100000    57  19 d 16 h  31 d     customer                              quota, soft
trial              0      60    60        0 s  1 min    customer                              sliding_window, shadow"""


def test_a_customers_policies_are_a_table() -> None:
    assert render_limits(POLICIES) == LIMITS
    held_back = {**POLICIES[0], "held_back": 30}
    assert render_limits([held_back]).splitlines()[-1].endswith("30 held back")


@pytest.mark.parametrize("missing", LINE)
def test_incomplete_policy_raises_lookup_error(missing: str) -> None:
    line = dict(LINE)
    del line[missing]
    with pytest.raises(LookupError):
        render_limits([line])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (59, "59 s"),
        (60.0, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90000, "1 d 1 h"),
        (86460, "1 d 1 min"),
        (2678400.0, "31 d"),
    ],
)
def test_duration_is_formatted_with_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_overview_states_directory_version_age_and_fault() -> None:
    status = deepcopy(STATUS)
    known = {"version": 7, "customers": 1000, "keys": 1200, "age_s": 65.4}
    status["directory"] = {**known, "state": "current", "in_files": 0, "unknown_tiers": {}}
    line = "keys    version 7 of the directory: 1000 customers, 1200 keys, known to be the newest 1 min 5 s ago"
    assert render_overview(status).splitlines()[3] == line
    status["directory"] |= {"state": "behind", "why": "no answer", "in_files": 2, "unknown_tiers": {"gold": 3}}
    assert render_overview(status).splitlines()[4:7] == [
        "        not followed: no answer",
        "        2 of them are in the files too, which count",
        "        3 refused: there is no tier gold here",
    ]
    status["directory"] |= {"why": "version 1 is older", "refused": "version 1 is older"}
    assert "`edgeproxy directory back`" in "".join(render_overview(status).splitlines()[4:7])
    status["directory"] |= {"why": "no answer", "refused": None}
    status["directory"] |= {"customers": 1, "keys": 1}
    assert "the directory: 1 customer, 1 key, known" in render_overview(status)
    status["directory"] |= {"version": None, "age_s": None, "in_files": 0, "unknown_tiers": {}}
    assert render_overview(status).splitlines()[3:5] == [
        "keys    no directory yet",
        "        not followed: no answer",
    ]
