"""Personal names, addresses and texts from every kind of request are in no log, metric or trace."""

import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import orjson

from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, SERVICE
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.support.receivers import Receiver
from tests.support.site import SCRAPE, PagesStage
from tests.support.visitor import Visitor

EMAIL, ADDRESS = "ada@planted.example", "203.0.113.77"


def live_a_day(stage: PagesStage) -> None:
    """Send a personal text to each call that takes one, and an address to each page. Some calls fail."""
    path, collector = "/v1/customers/acme", stage.collector

    def send(method: str, where: str, body: Any = None, **options: Any) -> Any:
        answer = collector.send(method, where, body, X_Forwarded_For=ADDRESS, **options)
        assert answer.status < 300 or answer.status in (400, 404, 409, 422), (where, answer)
        return answer.json() if answer.body else {}

    send("PATCH", path, {"external_id": "planted-crm", "metadata": {"note": "planted note"}})
    send("POST", f"{path}/contacts", {"email": EMAIL, "role": "owner"})
    send("PUT", f"{path}/alert-address", {"email": EMAIL})
    key = send("POST", f"{path}/keys", {"name": "planted key"})["id"]
    send("DELETE", f"/v1/keys/{key}", {"why": "planted why"})
    hook = {"url": "https://127.0.0.1:1/planted", "description": "planted hook", "types": ["invoice.paid"]}
    endpoint = send("POST", f"{path}/webhook-endpoints", hook)["id"]
    send("POST", f"{path}/webhook-endpoints/{endpoint}/test")
    send("POST", f"{path}/limits/raise", {"factor": 2, "for": "8h", "why": "planted launch"})
    request = {"customer": "acme", "kind": "access", "person": f"Ada Planted, {EMAIL}", "note": "planted letter"}
    steps = f"/v1/privacy/requests/{send('POST', '/v1/privacy/requests', request)['id']}/steps"
    send("POST", steps, {"state": "identified", "note": "planted mail"})
    event = {"id": "planted-1", "source": "app", "customer": "acme", "meter": "llm_tokens", "value": 1}
    events = [event | {"dimensions": {"model": "planted-user"}}, event | {"id": "planted-2", "meter": "none"}]
    send("POST", "/v1/events", events, token=SERVICE)
    letters = collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]
    send("DELETE", f"/v1/dead-letters/{letters[0]['id']}?why=planted")
    send("PUT", f"{path}/holdings/workflows/planted-item", token=SERVICE)
    assert (
        collector.post(
            Chain("edge-eu-1", "eu-west", int(time.time()) - 60).next(("acme", "requests", "planted-route", 7))
        ).status
        == 200
    )
    send("GET", f"/v1/customers?search={EMAIL}")
    send("GET", f"/v1/customers/{EMAIL}")
    send("POST", "/v1/customers", {"name": EMAIL, "tier": "none", "metadata": {"planted": 1}})
    with Visitor(stage.site) as visitor:
        for email in ("nobody@planted.example", EMAIL):
            visitor.get("/sign-in")
            visitor.send("/sign-in", email=email)
        link = stage.wait_for_link(EMAIL)
        visitor.get(link)
        visitor.send("/sign-in/link")
        visitor.get("/account/team")
        visitor.send("/account/team/invite", email="bob@planted.example", role="billing")
        visitor.get("/account/data")
        visitor.send("/account/data/download")
        assert visitor.status == 200
        visitor.get(f"/nowhere/{EMAIL}")
        visitor.get(link)
        visitor.send("/sign-in/link")
    stage.operator.get(f"/console/search?q={EMAIL}")


def test_logs_metrics_and_traces_contain_no_personal_data(tmp_path: Path) -> None:
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        tracing = {"endpoint": f"http://{HOST}:{receiver.port}", "sample": "100%", "service_name": "collector"}
        settings = {"tracing": tracing, "trusted_proxies": ["127.0.0.1/32"]}
        stage = stack.enter_context(closing(PagesStage(tmp_path, collector=settings)))
        collector = stage.collector
        live_a_day(stage)
        until(lambda: any(b"/v1/customers" in one.body for one in receiver.got), "requests are exported")
        metrics = collector.get("/metrics", token=SCRAPE).body
        collector.end()
        places = {
            "metrics": metrics,
            "log": collector.output.encode(),
            "traces": b"".join(x.body for x in receiver.got),
        }
        with closing(sqlite3.connect(collector.database)) as database:
            stored = orjson.dumps("\n".join(database.iterdump()))
    assert stored.count(b"planted") > 20, "the planted values were stored"
    assert ADDRESS.encode() in stored
    for place, content in places.items():
        assert content
        for planted in (b"planted", b"Planted", ADDRESS.encode()):
            assert planted not in content, (place, [line for line in content.splitlines() if planted in line][:3])
