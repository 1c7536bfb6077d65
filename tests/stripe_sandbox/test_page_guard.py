"""Pages of other sites, open in the developer's browser, act on nothing and read nothing."""

from collections.abc import Iterator

import orjson
import pytest

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from tests.support.stripe_sandbox import KEY, Sandbox

JSON, TEXT = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
PLAN = {"seed": 0, "faults": [{"kind": "latency", "seconds": 0.0, "path": "/none"}]}
ATTACKER = "attacker.example"


@pytest.fixture
def sandbox(stripe_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, whose faults are taken back."""
    yield stripe_sandbox
    stripe_sandbox.faults()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (JSON, 200),
        ({**JSON, "Origin": "http://{own}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({**JSON, "Host": "localhost:12111"}, 200),
        ({**JSON, "Host": "[::1]:12111", "Origin": "http://[::1]:12111"}, 200),
        (TEXT, 415),
        ({**TEXT, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**TEXT, "Sec-Fetch-Site": "same-site", "Origin": f"http://{HOST}:1"}, 403),
        ({**JSON, "Origin": f"http://{ATTACKER}"}, 403),
        ({**JSON, "Origin": f"http://{HOST}:1"}, 403),
        ({**JSON, "Origin": "null"}, 403),
        ({**JSON, "Host": f"{ATTACKER}:12111", "Origin": f"http://{ATTACKER}:12111"}, 421),
        ({**JSON, "Host": f"127.0.0.1.{ATTACKER}"}, 421),
        ({**JSON, "Host": "[::1"}, 421),
    ],
)
def test_faults_are_set_by_no_page_of_another_site(sandbox: Sandbox, fields: dict[str, str], status: int) -> None:
    fields = {name: value.format(own=f"{HOST}:{sandbox.port}") for name, value in fields.items()}
    answer = ask(sandbox.port, "/_sandbox/faults", method="POST", fields=fields, body=orjson.dumps(PLAN))
    assert answer.status == status, answer
    assert bool(sandbox.control("faults")["faults"]) == (status == 200)


@pytest.mark.parametrize("path", ["clock", "deliveries", "checkout/cs_none/pay"])
def test_no_form_of_another_site_is_taken(stripe_sandbox: Sandbox, path: str) -> None:
    fields = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://{ATTACKER}"}
    assert ask(stripe_sandbox.port, f"/_sandbox/{path}", method="POST", fields=fields, body=b"a=b").status == 403


def test_sandbox_refuses_requests_with_a_foreign_host_name(stripe_sandbox: Sandbox) -> None:
    for path in ("/v1/customers", "/_sandbox/journal", "/_sandbox/ready"):
        fields = {"Authorization": f"Bearer {KEY}", "Host": f"{ATTACKER}:{stripe_sandbox.port}"}
        assert ask(stripe_sandbox.port, path, fields=fields).status == 421
