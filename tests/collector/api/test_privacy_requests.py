"""Privacy requests: deadline, permitted steps, readers, and the remaining data after an erasure."""

from datetime import datetime

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.privacy.requests import STEPS_MAX, TRANSITIONS
from loadtest.testbed.collector import ADMIN, OWN, READ, SERVICE, Collector
from tests.support.collector_fixtures import StartCollector

PERSON, NOTE = "Ada Lovelace, ada@acme.example", "She wrote a mail."
PATH = "/v1/privacy/requests"


@pytest.mark.parametrize(("law", "days"), [("gdpr", 30), ("ccpa", 45)])
def test_privacy_request_has_the_deadline_of_its_law_and_follows_its_steps(
    collector: Collector, law: str, days: int
) -> None:
    body = {"kind": "access", "law": law, "person": PERSON, "note": NOTE}
    created = collector.send("POST", PATH, body)
    assert created.status == 201
    request = created.json()
    due, at = (datetime.fromisoformat(request[name]) for name in ("due_at", "requested_at"))
    assert (due - at).days == days
    assert (request["customer"], request["is_overdue"], request["ended_at"]) == (None, False, None)
    steps = f"{PATH}/{request['id']}/steps"

    def step(state: str) -> int:
        return collector.send("POST", steps, {"state": state, "note": f"now {state}"}).status

    assert step("done") == 409, "the person is not identified"
    assert step("identified") == 201
    assert request["id"] in [one["id"] for one in listed(collector, "?open=true")]
    assert step("received") == 409
    assert step("done") == 201
    assert step("done") == 409, "the request has ended"
    (ended,) = [one for one in listed(collector) if one["id"] == request["id"]]
    assert [(step["state"], step["actor"]) for step in ended["steps"]] == [
        ("received", "admin"),
        ("identified", "admin"),
        ("done", "admin"),
    ]
    assert ended["ended_at"] is not None
    assert request["id"] not in [one["id"] for one in listed(collector, "?open=true")]
    entries = collector.get(f"/v1/audit?target={request['id']}", token=ADMIN).json()["entries"]
    assert [entry["action"] for entry in entries] == ["privacy_request.create", *2 * ["privacy_request.step"]]
    assert "Ada" not in str(entries), "the retained entries omit the person's name"


def listed(collector: Collector, query: str = "") -> list[dict[str, object]]:
    """All requests, page by page."""
    rows: list[dict[str, object]] = []
    path = f"{PATH}{query}"
    while path:
        page = collector.get(path, token=ADMIN).json()
        rows += page["requests"]
        separator = "&" if query else "?"
        path = f"{PATH}{query}{separator}cursor={page['next']}" if "next" in page else ""
    return rows


def test_invalid_privacy_request_is_refused_and_other_roles_see_none(collector: Collector) -> None:
    good = {"kind": "erasure", "person": PERSON, "note": NOTE}
    for wrong in ({"kind": "gossip"}, {"law": "hammurabi"}, {"person": ""}, {"note": ""}, {"due_at": "2099-01-01"}):
        assert collector.send("POST", PATH, good | wrong).status == 422, wrong
    assert collector.send("POST", PATH, good | {"customer": "nobody-of-this-name"}).status == 404
    assert collector.send("POST", f"{PATH}/none/steps", {"state": "done", "note": "n"}).status == 404
    for token in (READ, OWN, SERVICE):
        assert collector.get(PATH, token=token).status == 403, token
        assert collector.send("POST", PATH, good, token=token).status == 403, token


def test_steps_have_an_end(collector: Collector) -> None:
    request = collector.send("POST", PATH, {"kind": "objection", "person": PERSON, "note": NOTE}).json()
    steps, again = f"{PATH}/{request['id']}/steps", {"state": "received", "note": "Asked again."}
    answers = [collector.send("POST", steps, again).status for _ in range(STEPS_MAX)]
    assert answers == [201] * (STEPS_MAX - 1) + [409]
    assert collector.send("POST", steps, {"state": "withdrawn", "note": "Taken back."}).status == 201


def test_an_erasure_leaves_of_a_request_that_it_was_answered(start_collector: StartCollector) -> None:
    collector = start_collector()
    assert collector.send("POST", "/v1/customers", {"name": "carol", "tier": "basic"}).status == 201
    body = {"kind": "erasure", "customer": "carol", "person": PERSON, "note": NOTE}
    request = collector.send("POST", PATH, body).json()
    environment = {"EDGEPROXY_COLLECTOR": f"http://127.0.0.1:{collector.port}", "EDGEPROXY_TOKEN": ADMIN}
    shown = CliRunner().invoke(cli.app, ["privacy", "requests"], env=environment)
    assert shown.exit_code == 0, shown.output
    assert request["id"] in shown.output
    steps = f"{PATH}/{request['id']}/steps"
    assert collector.send("POST", steps, {"state": "identified", "note": "By her mail."}).status == 201
    erased = CliRunner().invoke(cli.app, ["privacy", "erase", "-c", str(collector.file), "carol", "--yes"])
    assert erased.exit_code == 0, erased.output
    assert collector.send("POST", steps, {"state": "done", "note": "Erased."}).status == 201
    (left,) = listed(collector)
    assert (left["person"], left["state"], left["kind"]) == (None, "done", "erasure")
    assert "Ada" not in str(left)
    assert "mail" not in str(left)
    shown = CliRunner().invoke(cli.app, ["privacy", "requests"], env=environment)
    assert request["id"] not in shown.output


def test_each_state_that_ends_a_request_is_reached() -> None:
    ends = {state for state, after in TRANSITIONS.items() if not after}
    assert ends == {"done", "refused", "withdrawn"}
    assert ends <= TRANSITIONS["identified"]
    assert "done" not in TRANSITIONS["received"]
