"""General behaviour of the API: forms, errors, lists, keys, expansion, versions, searches."""

import base64
import http.client
import os
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from stripe_sandbox.description import load_description
from stripe_sandbox.store import connect
from tests.support.stripe_sandbox import KEY, Api, Sandbox


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("customers", "nmae=A", "nmae", "parameter_unknown"),
        ("customers", "address[plnet]=1", "address[plnet]", "parameter_unknown"),
        ("customers", "address=x", "address", None),
        ("customers", "balance=1.5", "balance", "parameter_invalid_integer"),
        ("customers", "tax_exempt=some", "tax_exempt", None),
        ("customers", "a[=1", "a[", "parameter_unknown"),
        ("customers", "metadata[k]=" + "x" * 501, "metadata[k]", None),
        ("customers", "email=nobody", "email", "email_invalid"),
        ("invoices", "auto_advance=yes", "auto_advance", None),
        ("invoices", "", "customer", "parameter_missing"),
        ("invoices", "customer=cus_nobody", "customer", "resource_missing"),
        ("invoiceitems", "customer=", "customer", "resource_missing"),
        ("products", "", "name", "parameter_missing"),
        ("products", "name=", "name", "parameter_invalid_empty"),
        ("billing/meters", "display_name=a&event_name=b", "default_aggregation", "parameter_missing"),
        ("billing/meter_events", f"event_name=a&payload[value]=1&identifier={'x' * 101}", "identifier", None),
        ("subscriptions", "customer=x&items[0][quantity]=two", "items[0][quantity]", "parameter_invalid_integer"),
    ],
)
def test_error_names_the_wrong_parameter(stripe_api: Api, path: str, body: str, param: str, code: str | None) -> None:
    answer = stripe_api.call("POST", f"/v1/{path}", body)
    error = answer.json()["error"]
    assert (answer.status, error.get("param"), error.get("code")) == (400, param, code), error
    assert error["type"] == "invalid_request_error"
    page = code and f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    assert error.get("doc_url") == page


def test_parameter_unsupported_by_the_sandbox_is_refused(stripe_sandbox: Sandbox) -> None:
    for path, body, param in (
        ("customers", "cash_balance[settings]=1", "cash_balance"),
        ("subscriptions", "customer=x&pending_invoice_item_interval[interval]=day", "pending_invoice_item_interval"),
    ):
        error = stripe_sandbox.call("POST", f"/v1/{path}", body).json()["error"]
        assert (error["code"], error["param"]) == ("sandbox_unsupported", param)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/customers/cus_nobody", 404, "resource_missing"),
        ("POST", "/v1/invoices/in_none/finalize", 404, "resource_missing"),
        ("DELETE", "/v1/invoiceitems/ii_none", 404, "resource_missing"),
        ("GET", "/v1/unheard_of", 404, None),
        ("PUT", "/v1/customers", 404, None),
        ("GET", "/v1/customers?limit=101", 400, None),
        ("GET", "/v1/customers?starting_after=cus_nobody", 400, "resource_missing"),
        ("GET", "/v1/customers?expand[]=data.name", 400, None),
        ("GET", "/v1/customers?starting_after=cus_a&ending_before=cus_b", 400, "parameters_exclusive"),
    ],
)
def test_missing_object_or_path_has_its_error_code(
    stripe_api: Api, method: str, path: str, status: int, code: str | None
) -> None:
    stripe_api.call("POST", "/v1/customers", "name=A")
    answer = stripe_api.call(method, path)
    assert (answer.status, answer.json()["error"].get("code")) == (status, code)


def test_bearer_and_basic_keys_are_accepted_and_modes_are_separate(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    basic = "Basic " + base64.b64encode(b"sk_live_x:").decode()
    body = sandbox.call("POST", "/v1/customers", "name=L", Authorization=basic).json()
    assert body["livemode"] is True
    assert sandbox.call("GET", f"/v1/customers/{body['id']}").status == 404
    assert sandbox.call("GET", f"/v1/customers/{body['id']}", Authorization=basic).json()["name"] == "L"
    for wrong in ("", "Bearer pk_test_x", "Basic !", "Bearer sk_test"):
        answer = sandbox.call("GET", "/v1/customers", Authorization=wrong)
        assert answer.status == 401
        assert answer["request-id"].startswith("req_")


@pytest.mark.parametrize("field", ["Stripe_Account", "Stripe_Context"])
def test_request_for_another_account_is_refused_without_a_change(stripe_api: Api, field: str) -> None:
    answer = stripe_api.call("POST", "/v1/customers", "email=connected@example.com", **{field: "acct_1OfSomebody"})
    error = answer.json()["error"]
    assert (answer.status, error["code"], "acct_1OfSomebody" in error["message"]) == (403, "account_invalid", True)
    assert stripe_api.call("GET", "/v1/customers?email=connected@example.com").json()["data"] == []


def test_answers_name_request_and_version_and_other_versions_are_refused(stripe_sandbox: Sandbox) -> None:
    answer = stripe_sandbox.call("GET", "/v1/customers")
    assert answer["stripe-version"] == load_description().version
    assert answer["request-id"].startswith("req_")
    assert stripe_sandbox.call("GET", "/v1/customers", Stripe_Version="2020-08-27").status == 400


def test_objects_have_an_id_prefix_and_null_for_unset_fields(stripe_api: Api) -> None:
    made = {"cus_": stripe_api.call("POST", "/v1/customers").json()}
    made["prod_"] = stripe_api.call("POST", "/v1/products", "name=P").json()
    made["in_"] = stripe_api.call("POST", "/v1/invoices", f"customer={made['cus_']['id']}").json()
    unset = {
        "cus_": ("description", "email", "name", "phone", "shipping"),
        "prod_": ("default_price", "description", "tax_code", "url"),
        "in_": ("default_payment_method", "description", "footer", "invoice_pdf", "number"),
    }
    for prefix, one in made.items():
        assert one["id"].startswith(prefix)
        assert {name: one[name] for name in unset[prefix]} == dict.fromkeys(unset[prefix])


@pytest.mark.difference(
    "a meter event with a wrong time",
    "refused at once, not by an event later",
)
@pytest.mark.parametrize(("days", "minutes", "status"), [(-36, 0, 400), (-34, 0, 200), (0, 4, 200), (0, 7, 400)])
def test_meter_event_time_is_within_35_days_back_and_5_minutes_ahead(
    stripe_api: Api, days: int, minutes: int, status: int
) -> None:
    at = int(time.time()) + 86400 * days + 60 * minutes
    if isinstance(stripe_api, Sandbox):
        at = int(stripe_api.control("clock")["now"]) + 86400 * days + 60 * minutes
    body = f"event_name=dated&payload[stripe_customer_id]=cus_dated&payload[value]=1&timestamp={at}"
    assert stripe_api.call("POST", "/v1/billing/meter_events", body).status == status


def test_lists_are_newest_first_with_ten_per_page_and_cursors_both_ways(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    made = [sandbox.call("POST", "/v1/products", f"name=p{n}&url=http://list").json()["id"] for n in range(12)]
    made.reverse()
    listed = sandbox.call("GET", "/v1/products?url=http://list").json()
    assert ([one["id"] for one in listed["data"]], listed["has_more"]) == (made[:10], True)
    rest = sandbox.call("GET", f"/v1/products?url=http://list&starting_after={made[9]}").json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (made[10:], False)
    back = sandbox.call("GET", f"/v1/products?url=http://list&limit=3&ending_before={made[6]}").json()
    assert ([one["id"] for one in back["data"]], back["has_more"]) == (made[3:6], True)
    assert listed["url"] == "/v1/products"
    now = int(sandbox.control("clock")["now"])
    assert sandbox.call("GET", f"/v1/products?created[gt]={now + 60}").json()["data"] == []


def test_expand_replaces_ids_by_objects(stripe_api: Api) -> None:
    sandbox = stripe_api
    product = sandbox.call("POST", "/v1/products", "name=P").json()["id"]
    price = sandbox.call(
        "POST",
        "/v1/prices",
        f"product={product}&currency=usd&unit_amount_decimal=0.001&expand[]=product&expand[]=product.default_price",
    ).json()
    assert (price["product"]["id"], price["unit_amount"], price["unit_amount_decimal"]) == (product, None, "0.001")
    assert price["product"]["default_price"] is None
    listed = sandbox.call("GET", f"/v1/prices?product={product}&expand[]=data.product").json()
    assert listed["data"][0]["product"]["name"] == "P"


def test_idempotency_key_replays_answers_and_errors_but_not_invalid_calls(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    first = sandbox.call("POST", "/v1/invoices/in_none/finalize", Idempotency_Key="gone")
    assert "idempotent-replayed" not in first
    again = sandbox.call("POST", "/v1/invoices/in_none/finalize", Idempotency_Key="gone")
    assert (again.status, again["idempotent-replayed"]) == (404, "true")
    assert sandbox.call("POST", "/v1/products", "nmae=x", Idempotency_Key="begun").status == 400
    good = sandbox.call("POST", "/v1/products", "name=x", Idempotency_Key="begun")
    assert (good.status, "idempotent-replayed" in good) == (200, False)
    sandbox.faults({"kind": "error_after", "count": 1, "path": "/v1/products"})
    failed = sandbox.call("POST", "/v1/products", "name=failed", Idempotency_Key="500")
    assert failed.status == 500
    replayed = sandbox.call("POST", "/v1/products", "name=failed", Idempotency_Key="500")
    assert (replayed.status, replayed["idempotent-replayed"]) == (500, "true")
    sandbox.faults()
    assert len([one for one in sandbox.call("GET", "/v1/products").json()["data"] if one["name"] == "failed"]) == 1


def test_call_in_progress_blocks_calls_with_its_key_or_meter(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    sandbox.faults({"kind": "latency", "seconds": 2, "count": 1, "path": "/v1/billing/meter_events"})
    body = "event_name=slow&payload[stripe_customer_id]=cus_slow&payload[value]=1"
    fields = {
        "Authorization": f"Bearer {KEY}",
        "Idempotency-Key": "slow",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    slow = http.client.HTTPConnection(HOST, sandbox.port, timeout=60)
    slow.request("POST", "/v1/billing/meter_events", body, fields)
    met = 0
    while not met:
        met = sandbox.control("faults")["faults"][0].get("met", 0)
    same_key = sandbox.call("POST", "/v1/billing/meter_events", body, Idempotency_Key="slow")
    same_meter = sandbox.call("POST", "/v1/billing/meter_events", body)
    other = sandbox.call("POST", "/v1/billing/meter_events", body.replace("cus_slow", "cus_other"))
    assert (same_key.status, same_key.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    assert (same_meter.status, other.status) == (409, 200)
    assert slow.getresponse().status == 200
    slow.close()
    sandbox.faults()


def test_metadata_is_merged_and_removed(stripe_api: Api) -> None:
    sandbox = stripe_api
    body = sandbox.call("POST", "/v1/customers", "metadata[a]=1&metadata[b]=2&phone=1").json()
    changed = sandbox.call("POST", f"/v1/customers/{body['id']}", "metadata[a]=&metadata[c]=3&phone=").json()
    assert (changed["metadata"], changed["phone"]) == ({"b": "2", "c": "3"}, None)
    assert sandbox.call("POST", f"/v1/customers/{body['id']}", "metadata=").json()["metadata"] == {}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('name:"Zada L"', ["Zada L"]),
        ('name~"zad"', ["Zadam", "Zada L"]),
        ('metadata["edgeproxy"]:"1"', ["Zada L"]),
        ('-metadata["edgeproxy"]:"1" AND name~"Zad"', ["Zadam"]),
        ('name:"Zadam" OR name:"Zbob"', ["Zbob", "Zadam"]),
        ("email:null AND name:'Zbob'", ["Zbob"]),
        ("created>1 AND name:'Zbob'", ["Zbob"]),
        ('planet:"x"', None),
        ('name:"a" AND name:"b" OR name:"c"', None),
        ("name='); DROP TABLE objects; --", None),
    ],
)
def test_search_returns_matching_objects(stripe_sandbox: Sandbox, query: str, names: list[str] | None) -> None:
    sandbox = stripe_sandbox
    if not sandbox.call("GET", "/v1/customers/search?query=" + quote('name:"Zbob"')).json()["data"]:
        for name in ("Zada+L&metadata[edgeproxy]=1", "Zadam", "Zbob"):
            sandbox.call("POST", "/v1/customers", f"name={name}")
    answer = sandbox.call("GET", "/v1/customers/search?query=" + quote(query))
    assert (answer.status == 400) == (names is None)
    if names is not None:
        assert [one["name"] for one in answer.json()["data"]] == names
        counted = sandbox.call("GET", f"/v1/customers/search?limit=1&expand[]=total_count&query={quote(query)}").json()
        assert (counted["total_count"], "total_count" in answer.json()) == (len(names), False)


def test_hostile_request_is_refused(stripe_sandbox: Sandbox) -> None:
    sandbox = stripe_sandbox
    deep = "a" + "[a]" * 5000
    for body in (f"{deep}=1", "metadata[" + "k" * 41 + "]=1", "&".join(f"metadata[k{n}]=1" for n in range(51)), "\xff"):
        assert sandbox.call("POST", "/v1/customers", body).status == 400
    assert sandbox.call("POST", "/v1/prices", "currency=usd&product=x&unit_amount=" + "9" * 400).status == 400
    assert sandbox.call("POST", "/v2/core/event_destinations", "[" * 100_000).status == 400
    big = ask(
        sandbox.port, "/v1/customers", method="POST", fields={"Authorization": f"Bearer {KEY}"}, body=b"a" * (2 << 20)
    )
    assert big.status == 413
    assert sandbox.call("GET", "/v1/customers?limit=1").status == 200


def test_rates_are_limited_for_all_calls_and_for_each_endpoint(tmp_path_factory: pytest.TempPathFactory) -> None:
    sandbox = Sandbox(tmp_path_factory.mktemp("rates"), "--rates", "test")
    try:
        sandbox.start()
        with socket.create_connection((HOST, sandbox.port)) as wire:
            call = f"GET /v1/customers HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
            wire.sendall(call * 200)
            heard = b""
            while heard.count(b"HTTP/1.1 ") < 200:
                heard += wire.recv(1 << 16)
        assert heard.count(b"HTTP/1.1 200") >= 25
        assert heard.count(b"HTTP/1.1 429") > 100
        assert b"Stripe-Rate-Limited-Reason: endpoint-rate" in heard
        assert invoiced(sandbox) == [200] * 9 + [429], "a subscription has ten invoices a minute"
    finally:
        sandbox.close()


def invoiced(sandbox: Sandbox) -> list[int]:
    """Change a subscription ten times at once, each time with an invoice. Return the statuses."""
    card = "payment_method=pm_card_visa&invoice_settings[default_payment_method]=pm_card_visa"
    calls = Patient(sandbox)
    customer = calls("customers", card)["id"]
    data = "currency=usd&unit_amount=100&recurring[interval]=month&product_data[name]=Seat"
    price = calls("prices", data)["id"]
    created = calls("subscriptions", f"customer={customer}&items[0][price]={price}")
    item = created["items"]["data"][0]["id"]
    path = f"subscriptions/{created['id']}"
    change = f"items[0][id]={item}&proration_behavior=always_invoice&items[0][quantity]="
    for n in range(10):
        calls(path, change + str(n + 2))
    return calls.statuses[-10:]


class Patient:
    """Repeats calls refused by the general rate limit, but not those refused by an object's own limit."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.statuses: list[int] = []

    def __call__(self, path: str, body: str) -> Any:
        """Send a call until it is answered, and return the answer."""
        while True:
            answer = self._sandbox.call("POST", f"/v1/{path}", body)
            if answer.status != 429 or answer["stripe-rate-limited-reason"] == "resource-specific":
                self.statuses.append(answer.status)
                return answer.json()


def test_database_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(connect(tmp_path / "stripe.db")):
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("stripe.db", "stripe.db-wal", "stripe.db-shm"), 0o600)


def test_clock_goes_back_only_while_the_sandbox_has_no_objects(tmp_path: Path) -> None:
    with closing(Sandbox(tmp_path).start()) as sandbox:
        assert sandbox.control("clock", {"now": 1_700_000_000})["now"] < 1_700_000_060
        made = sandbox.call("POST", "/v1/products", "name=first").json()
        assert 1_700_000_000 <= made["created"] < 1_700_000_060
        fields = {"Content-Type": "application/json"}
        back = ask(sandbox.port, "/_sandbox/clock", method="POST", body=b'{"now": 1600000000}', fields=fields)
        assert back.status == 400
