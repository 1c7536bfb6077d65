"""An API's own requests: filled in, drawn from an access log, and checked."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from edgeproxy.config.problems import ConfigError
from loadtest.replay import recorded
from loadtest.requests import NAMES_MAX, OTHER, Template, fetch_templates, fill, list_names, read_mix
from loadtest.schedule import Kind, Phase, arrivals
from loadtest.workload import load

OURS = (
    '{{"time":"2026-11-22T10:05:0{second}.250Z","client":"203.0.113.7","customer":"{customer}","method":"{method}",'
    '"path":"{path}","status":{status},"bytes_out":700}}'
)
LOG = [
    '203.0.113.7 - - [17/May/2015:10:05:01 +0000] "GET /a?page=2 HTTP/1.1" 200 1000 "-" "Mozilla/5.0"',
    '203.0.113.7 - - [17/May/2015:10:05:01 +0000] "POST /a HTTP/1.1" 201 10 "-" "-"',
    '203.0.113.7 - - [17/May/2015:10:05:02 +0000] "GET /gone HTTP/1.1" 404 10 "-" "-"',
    '203.0.113.7 - - [17/May/2015:10:05:02 +0000] "GET http://elsewhere/ HTTP/1.1" 200 10 "-" "-"',
    OURS.format(second=1, customer="acme", method="GET", path="/a?page=2", status=200),
    OURS.format(second=2, customer="-", method="HEAD", path="/b", status=204),
    OURS.format(second=3, customer="acme", method="DELETE", path="/b", status=204),
    '{"time": 7}',
    "no line of a log",
]
SPECS = """\
requests:
  - {share: 60%, path: "/v1/orders/{1..3}?of={customer}"}
  - {share: 30%, method: post, path: /v1/orders, body: '{"id": "{uuid}", "of": "{customer}"}', expect: [201, 409],
     headers: {Authorization: "Bearer {key}"}, name: make an order}
  - {share: 10%, log: LOG}
"""
REST = "shape: [{steady: 5/s, for: 2s}]\ntiers: {free: {share: 100%, customers: 3}}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "access.log"
    file.write_text("\n".join(LOG) + "\n")
    return file


@pytest.fixture
def made(tmp_path: Path, log: Path) -> list[Template]:
    file = tmp_path / "some.yaml"
    file.write_text(SPECS.replace("LOG", str(log)) + REST)
    return fetch_templates(load(file, {}).requests)


def test_requests_are_filled_in_for_each_customer(made: list[Template]) -> None:
    filled = [fill(made[0], "pro-7", "s3cret", Random(seed)) for seed in range(40)]
    assert {one.path for one in filled} == {f"/v1/orders/{number}?of=pro-7" for number in (1, 2, 3)}
    assert filled[0].headers == {"X-API-Key": "s3cret"}
    order = fill(made[1], "pro-7", "s3cret", Random(1))
    assert order.headers == {"Authorization": "Bearer s3cret", "Content-Type": "application/json"}, "one key, not two"
    assert order.body.endswith(b', "of": "pro-7"}')
    assert order.body != fill(made[1], "pro-7", "s3cret", Random(2)).body
    assert fill(made[1], "anonymous-1", None, Random(1)).headers == {"Content-Type": "application/json"}


def test_log_mix_keeps_repeatable_requests_in_proportion(made: list[Template]) -> None:
    assert read_mix(LOG) == {("GET", "/a?page=2"): 2, ("HEAD", "/b"): 1}
    assert [(round(template.weight, 4), template.method, template.path) for template in made[2:]] == [
        (0.0667, "GET", "/a?page=2"),
        (0.0333, "HEAD", "/b"),
    ]
    assert [template.name for template in made] == ["GET /v1/orders/{1..3}", "make an order", "GET /a", "HEAD /b"]
    drawn = Counter(arrival.request for arrival in arrivals(
        [Phase(200, 50, 50)], {"eu": 1}, {"free": Kind(1, 3)}, 7, [template.weight for template in made]
    ))  # fmt: skip
    assert [round(drawn[number] / drawn.total(), 2) for number in range(4)] == pytest.approx(
        [0.6, 0.3, 0.07, 0.03], abs=0.015
    )


def test_a_replay_asks_for_the_paths_of_the_log_if_it_is_to() -> None:
    assert [(request[2], request[4]) for request in recorded(LOG, 1, speed=1, longest_gap=1, paths=True).requests] == [
        ("GET", "/a?page=2"), ("GET", "/a?page=2"), ("HEAD", "/b"),
    ]  # fmt: skip
    everything = recorded(LOG, 1, speed=1, longest_gap=1).requests
    assert (len(everything), {request[4] for request in everything}) == (7, {""})
    mine = [request[1] for request in recorded(LOG[4:7], 1, speed=1, longest_gap=1).requests]
    assert mine[0] == mine[2] != mine[1], "a customer is one person, whatever the address"


def test_names_are_bounded_however_many_paths_a_log_has() -> None:
    names = list_names([], [("GET", f"/{number % 300}") for number in range(1000)])
    assert (len(names), names[-1]) == (NAMES_MAX, OTHER)


@pytest.mark.parametrize(
    ("requests", "told"),
    [
        ("[{share: 50%, path: /a}]", "requests: makes 50%, let the shares make 100%"),
        ("[{path: /a}]", "requests.0: share is missing, write share: 30%"),
        ("[{share: 100%}]", "requests.0: asks for nothing, write path: /v1/orders, or log:"),
        ("[{share: 100%, path: a}]", "requests.0.path: 'a' is not a path, a path such as /v1/orders"),
        ("[{share: 100%, path: /a, method: FETCH}]", "requests.0.method: 'FETCH' is not a method"),
        (
            "[{share: 100%, path: /a, headers: {X-A: é}}]",
            "requests.0.headers.X-A: 'é' is not one line of visible ASCII",
        ),
        ("[{share: 100%, path: /a, body: x, body_file: y}]", "requests.0.body_file: stands beside body, leave one"),
        ("[{share: 100%, path: /a, body_file: nowhere.json}]", "requests.0.body_file: nowhere.json is not there"),
        ("[{share: 100%, log: nowhere.log}]", "requests.0.log: nowhere.log is not there"),
        ("[{share: 100%, log: a.log, method: GET}]", "requests.0.method: is not for a log"),
        ("[{share: 100%, path: /a, expect: [99]}]", "requests.0.expect.0: 99 is out of range"),
    ],
)
def test_invalid_requests_setting_is_reported(requests: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(f"{REST}requests: {requests}\n")
    with pytest.raises(ConfigError) as raised:
        load(file, {})
    assert any(told in str(problem) for problem in raised.value.problems), str(raised.value)
