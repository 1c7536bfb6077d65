"""Credits over HTTP: balances, statements, corrections and refunds, and the permissions for each."""

import csv
import io
import itertools
import re
import time
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, OWN, READ, Collector
from loadtest.testbed.http_client import Answer, ask
from tests.support.collector_fixtures import only_sqlite

NUMBERS = itertools.count()


def post(collector: Collector, path: str, said: dict[str, Any], token: str = ADMIN) -> Answer:
    """Send a request from a new source address: some endpoints allow only a few requests a minute per address."""
    number = next(NUMBERS)
    source = f"127.{collector.port % 200 + 1}.{number // 250}.{number % 250 + 1}"
    fields = {"Authorization": f"Bearer {token}"}
    return ask(collector.port, f"/billing/{path}", method="POST", fields=fields, body=orjson.dumps(said), source=source)


def made(answer: Answer, status: int = 201) -> Any:
    assert answer.status == status, answer
    return answer.json()


class Payer:
    """A new customer with its own token."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.name = f"payer-{next(NUMBERS)}-{collector.port}"
        self.id: str = made(collector.send("POST", "/v1/customers", {"name": self.name, "tier": "basic"}))["id"]
        token = {"name": f"token-of-{self.name}", "customer": self.name}
        self.token: str = made(collector.send("POST", "/v1/tokens", token))["secret"]

    def get(self, path: str, token: str | None = None, **query: str) -> Answer:
        return self.collector.get(f"/billing/{path}", token=token or self.token, **query)

    def adjust(self, amount: int, *, token: str = ADMIN, **also: Any) -> Answer:
        said = {"customer": self.name, "millicredits": amount, "why": "sorry", **also}
        return self.collector.send("POST", "/billing/credits/adjust", said, token=token)

    def balance(self) -> tuple[int, int, int]:
        answer = made(self.get("balance"), 200)
        return answer["balance"], answer["pending"], answer["available"]


def test_given_credits_are_available_and_usage_is_pending(collector: Collector) -> None:
    payer = Payer(collector)
    assert payer.balance() == (0, 0, 0)
    assert made(payer.adjust(5_000_000))["balance"] == 5_000_000
    assert made(payer.adjust(-1_000))["kind"] == "withdrawal"
    expiring = made(payer.adjust(7, expires_at="2099-01-01T00:00:00Z"))
    wrong = payer.adjust(-5_000_000_000)
    most = {"field": "millicredits", "code": "out-of-range", "detail": "4999007 at most", "params": {"most": 4999007}}
    assert (wrong.status, wrong.json()["errors"]) == (409, [most])
    chain = Chain(since=int(time.time()))
    assert collector.post(chain.next((payer.name, "cost", "v1", 250))).status == 200
    answer = made(payer.get("balance"), 200)
    assert (answer["balance"], answer["pending"], answer["available"]) == (4_999_007, 250, 4_998_757)
    assert answer["usd"] == "4.998757"
    first, second = answer["grants"]
    assert (first["id"], first["millicredits"], first["expires_at"]) == (expiring["id"], 0, "2099-01-01T00:00:00.000Z")
    assert [(one["kind"], one["granted"], one["millicredits"]) for one in (first, second)] == [
        ("gift", 7, 0),
        ("gift", 5_000_000, 4_998_757),
    ], "the one that expires is spent first"
    assert sum(grant["millicredits"] for grant in answer["grants"]) == answer["available"], (
        "also of what is not booked yet"
    )
    assert made(payer.get("balance", at="2020-01-01"), 200)["balance"] == 0
    assert made(payer.get("balance", ADMIN, customer=payer.id), 200)["customer"] == payer.name
    entries = collector.get("/v1/audit", token=ADMIN, target=payer.name, limit="1000").json()["entries"]
    assert entries == [] or all(entry["action"] != "credits.gift" for entry in entries), "the journal knows them by id"
    entries = collector.get("/v1/audit", token=ADMIN, target=payer.id, limit="1000").json()["entries"]
    assert [entry["action"] for entry in entries] == ["credits.gift", "credits.withdrawal", "credits.gift"]
    assert entries[0]["after"]["why"] == "sorry"


def test_idempotency_key_of_another_customer_is_refused(collector: Collector) -> None:
    """Else the second customer would get the first one's answer, and no change would happen."""
    payers = [Payer(collector), Payer(collector)]
    plan = collector.get("/billing/plans", token=None).json()["plans"][0]["plan"]
    fields = {"Authorization": f"Bearer {ADMIN}", "Idempotency-Key": f"plan-of-{payers[0].name}"}
    body = orjson.dumps({"plan": plan})
    statuses = [
        ask(
            collector.port,
            f"/billing/subscription?customer={name}",
            method="POST",
            fields=fields,
            body=body,
            source=f"127.77.0.{collector.port % 200 + 1}",
        ).status
        for name in (payers[0].name, payers[0].name, payers[1].name)
    ]
    assert statuses == [201, 201, 422]


def test_adjustment_is_idempotent_and_a_dry_run_changes_nothing(collector: Collector) -> None:
    payer = Payer(collector)
    said = {"customer": payer.name, "millicredits": 500, "why": "sorry"}
    answers = [
        collector.send("POST", "/billing/credits/adjust", said, Idempotency_Key=f"key-of-{payer.name}")
        for _ in range(3)
    ]
    assert len({answer.body for answer in answers}) == 1
    other = {**said, "millicredits": 501}
    again = collector.send("POST", "/billing/credits/adjust", other, Idempotency_Key=f"key-of-{payer.name}")
    assert again.status == 422
    assert collector.send("POST", "/billing/credits/adjust?dry_run=true", said).json()["balance"] == 1000
    assert payer.balance() == (500, 0, 500)


def test_statements_are_available_as_json_csv_and_pdf(collector: Collector) -> None:
    payer = Payer(collector)
    assert made(payer.get("statements"), 200)["statements"] == []
    payer.adjust(1234)
    payer.adjust(-34)
    (month,) = made(payer.get("statements"), 200)["statements"]
    answer = made(payer.get(f"statements/{month}"), 200)
    assert (answer["opening"], answer["closing"]) == (0, 1200)
    assert sum(line["millicredits"] for line in answer["lines"]) == 1200
    response = payer.get(f"statements/{month}.csv")
    rows = list(csv.DictReader(io.StringIO(response.body.decode())))
    assert [row["what"] for row in rows] == [
        "Opening balance",
        "Credits given",
        "Credits taken back",
        "Balance so far",
    ]
    assert payer.get(f"statements/{month}.pdf").body.startswith(b"%PDF-")
    usage = made(payer.get(f"statements/{month}/usage", purchase="cs_1", limit="1"), 200)
    assert usage == {"customer": payer.name, "month": month, "usage": []}
    for wrong in ("2027-13", "2027-1", f"{month}.xls", f"{month}.", "x", "2027-1/usage", f"{month}.csv/usage"):
        assert payer.get(f"statements/{wrong}").status == 404


@only_sqlite("collector")
def test_credits_of_a_customer_require_its_token_or_a_role(collector: Collector) -> None:
    payer, other = Payer(collector), Payer(collector)
    payer.adjust(100)
    for path in ("balance", "statements", "statements/2027-01", "statements/2027-01.pdf", "statements/2027-01/usage"):
        assert other.get(path, customer=payer.name).status == 403
        assert other.get(path, customer=payer.id).status == 403
        assert payer.get(path, READ, customer=payer.name).status == 403
        assert payer.get(path, ADMIN).status == 422, "an admin must name the customer"
        assert payer.get(path, ADMIN, customer="nobody").status == 404
    url = "https://shop.example/back"
    for path, said in (("checkout", {"millicredits": 5_000_000, "success_url": url}), ("portal", {"return_url": url})):
        assert post(collector, f"{path}?customer={payer.name}", said, other.token).status == 403
        assert post(collector, path, said, payer.token).status == 409, "mode is off"
    second = made(collector.send("POST", "/v1/tokens", {"name": f"second-{payer.name}", "role": "billing"}))["secret"]
    for token in (payer.token, READ, second, OWN):
        assert payer.adjust(5, token=token).status == 403, "the token lacks the second factor or the role"
        refund = {"purchase": "cs_1", "why": "asked"}
        assert collector.send("POST", "/billing/refunds", refund, token=token).status == 403
    assert payer.get("accounting/2026-01-01").status == 403
    assert payer.balance() == (100, 0, 100)


FOR_ANYBODY = {"/billing/plans", "/billing/status", "/billing/webhooks/stripe"}
BODIES: dict[str, Any] = {
    "/billing/subscription": {"plan": "standard"},
    "/billing/subscription/preview": {"plan": "standard"},
    "/billing/subscription/coupon": {"coupon": "LAUNCH20"},
    "/billing/checkout": {"millicredits": 5_000_000, "success_url": "https://shop.example/back"},
    "/billing/credits/top-up": {"below": 5_000_000, "millicredits": 5_000_000, "month_max": 5_000_000},
    "/billing/portal": {"return_url": "https://shop.example/back"},
    "/billing/spend-alerts": {"amounts": [20000]},
    "/billing/details": {"name": "Acme"},
    "/billing/subscription/cancel": {"when": "period_end"},
}
"""Valid request bodies by endpoint. An endpoint checks the body before the customer."""


@only_sqlite("collector")
def test_every_billing_endpoint_refuses_another_or_no_customer(collector: Collector) -> None:
    payer, other = Payer(collector), Payer(collector)
    payer.adjust(100)
    described = made(collector.get("/v1/openapi.json"), 200)["paths"]
    asked = [
        (method.upper(), path)
        for path, methods in described.items()
        for method in methods
        if path.startswith("/billing/") and path not in FOR_ANYBODY
    ]
    assert len(asked) > 30
    for method, path in asked:
        filled = re.sub(r"{\w+}", "00000000-0000-7000-8000-000000000000", path)
        is_of_somebody = "{invoice}" in path or "{purchase}" in path
        about = "" if is_of_somebody else f"?customer={payer.name}"
        about += "&tier=standard" if path.endswith("/upgrade") else ""
        body = orjson.dumps(BODIES[path]) if method in ("POST", "PUT", "PATCH") and path in BODIES else b""
        for token, status in ((other.token, 403), (None, 401)):
            number = next(NUMBERS)
            answer = ask(
                collector.port,
                filled + about,
                method=method,
                fields={} if token is None else {"Authorization": f"Bearer {token}"},
                body=body,
                source=f"127.{collector.port % 200 + 1}.{number // 250}.{number % 250 + 1}",
            )
            assert answer.status == status, (method, path, answer)
    assert payer.balance() == (100, 0, 100)


@only_sqlite("collector")
@pytest.mark.parametrize(
    ("path", "said", "status", "field"),
    [
        ("credits/adjust", {"millicredits": 0}, 422, "millicredits"),
        ("credits/adjust", {"millicredits": 1.5}, 422, "millicredits"),
        ("credits/adjust", {"millicredits": 10**15}, 422, "millicredits"),
        ("credits/adjust", {"millicredits": -5, "expires_at": "2099-01-01"}, 422, "expires_at"),
        ("credits/adjust", {"millicredits": -5, "consumption": "x"}, 422, "millicredits"),
        ("credits/adjust", {"millicredits": 5, "consumption": "someone/else/0"}, 404, None),
        ("credits/adjust", {"millicredits": 5, "customer": "nobody"}, 404, None),
        ("checkout", {"millicredits": 5_000_001, "success_url": "https://a.example"}, 422, "millicredits"),
        ("checkout", {"millicredits": 0, "success_url": "https://a.example"}, 422, "millicredits"),
        ("checkout", {"millicredits": 5_000_000, "success_url": "javascript:alert(1)"}, 422, "success_url"),
        ("checkout", {"millicredits": 5_000_000, "success_url": "http://a.example"}, 422, "success_url"),
        ("portal", {"return_url": "https://[/"}, 422, "return_url"),
        ("refunds", {"purchase": "cs_1", "why": "asked", "millicredits": 15_000}, 422, "millicredits"),
    ],
)
def test_refused_credit_request_names_the_invalid_field(
    collector: Collector, path: str, said: dict[str, Any], status: int, field: str | None
) -> None:
    body = {"customer": "bolt", "why": "sorry", **said} if path == "credits/adjust" else said
    answer = post(collector, path, body)
    assert answer.status == status, answer
    assert [one["field"] for one in answer.json().get("errors", [])] == ([] if field is None else [field])


def test_accounting_day_is_available_over_http_and_by_command(collector: Collector) -> None:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for day, status in ((today, 409), ("2099-01-01", 409), ("2026-02-30", 404), ("20260101", 404), ("x", 404)):
        assert collector.get(f"/billing/accounting/{day}", token=ADMIN).status == status
    path = "/billing/accounting/2026-01-01"
    empty = {"date": "2026-01-01", "currency": "usd", "movements": [], "cents": {}}
    assert made(collector.get(path, token=ADMIN), 200) == empty
    assert made(collector.get(path, token=ADMIN, currency="eur"), 200) == {**empty, "currency": "eur"}
    assert collector.get(path, token=ADMIN, currency="xxx").status == 400
    quickbooks = collector.get(path, token=ADMIN, format="quickbooks").body
    assert quickbooks.startswith(b"JournalNo,JournalDate,")
    command = ["billing", "accounting", "-c", str(collector.file), "--date", "2026-01-01", "--format", "quickbooks"]
    done = CliRunner().invoke(cli.app, command)
    assert (done.exit_code, done.stdout_bytes) == (0, quickbooks), done.output
