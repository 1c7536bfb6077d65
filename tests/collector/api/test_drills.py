"""Drills: the steps of docs/billing/runbook.md on a running collector, as an operator performs them."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stripe
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.collector import ADMIN, Collector, checked
from loadtest.testbed.http_client import ask
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import KEY, Sandbox

OLD, NEW = "whsec_old", "whsec_new"
NEW_KEY = "sk_test_rolled"
GIVEN = 5_000_000


class Site:
    """A collector with its secret files, and the commands of an operator."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.key, self.secrets = folder / "key", folder / "secrets"
        self.key.write_text(KEY)
        self.secrets.write_text(OLD)
        way = {"base": sandbox.url, "key": str(self.key), "webhook_secrets": str(self.secrets)}
        billing = {"plans": str(ROOT / "loadtest/testbed/plans.yaml"), "mode": "live", "credits": {}, "stripe": way}
        self.collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", billing=billing)

    def say(self, *words: str) -> str:
        """Run a command of the runbook, assert its success and return its output."""
        environ = {"EDGEPROXY_COLLECTOR": f"http://127.0.0.1:{self.collector.port}", "EDGEPROXY_TOKEN": ADMIN}
        done = CliRunner().invoke(cli.app, ["billing", *words], env=environ)
        assert done.exit_code == 0, done.output
        return done.stdout

    def restart(self) -> None:
        self.collector.end()
        self.collector.start()

    def hear(self, event: str, secret: str) -> int:
        """Send an invoice event signed with `secret`. Return the status of the answer."""
        body = f'{{"id":"{event}","object":"event","type":"invoice.paid","created":{int(time.time())},"livemode":false,'
        body += '"data":{"object":{"object":"invoice","id":"in_drill"}}}'
        header = stripe.WebhookSignature.generate_signature_header(body, secret, timestamp=int(time.time()))
        path, fields = "/billing/webhooks/stripe", {"Stripe-Signature": header}
        return ask(self.collector.port, path, method="POST", fields=fields, body=body.encode()).status

    def alerts(self, kind: str) -> list[dict[str, Any]]:
        told = self.collector.get("/v1/alerts", token=ADMIN).json()["alerts"]
        return [alert for alert in told if alert["kind"] == kind]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, own_sandbox: Sandbox) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("drills"), own_sandbox)
    with closing(made.collector):
        made.collector.start()
        for name in ("acme-drilled", "bolt-drilled"):
            assert made.collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
            gift = {"customer": name, "millicredits": GIVEN, "why": "a drill"}
            assert made.collector.send("POST", "/billing/credits/adjust", gift).status == 201
        yield made


def test_runbook_corrects_a_drifted_balance(site: Site) -> None:
    collector = site.collector
    collector.end()
    of = "(SELECT id FROM customers WHERE name = 'acme-drilled')"
    collector.execute(f"UPDATE credit_balances SET balance = balance + 7 WHERE customer = {of}")
    collector.start()
    (alert,) = until(lambda: site.alerts("reconciliation_mismatch"), "an alert pages the operators")
    assert (alert["severity"], "acme-drilled" in alert["title"]) == ("page", True)

    said = site.say("reconciliation", "--kind", "E")
    assert re.search(r"acme-drilled credits: ours 5000000, theirs 5000007", said), said
    assert "bolt-drilled" not in said
    site.say("stop", "--why", "balances differ", "--message", "Billing is paused.")
    code, broken = checked(collector)
    assert (code, "balance" in broken) == (1, True), broken
    (mend,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs/billing/runbook.md").read_text(), re.DOTALL)
    collector.execute(mend)
    assert checked(collector)[0] == 0
    site.restart()

    def agrees() -> bool:
        found = collector.get("/billing/reconciliation", token=ADMIN, kind="E", limit="1").json()["reconciliations"]
        return bool(found) and found[0]["level"] == "none"

    until(agrees, "the next comparison agrees")
    site.say("resume", "--why", "the balance is right again")
    balance = collector.get("/billing/balance", token=ADMIN, customer="acme-drilled").json()["balance"]
    assert balance == GIVEN


def test_runbook_replaces_a_leaked_key_and_webhook_secret(site: Site) -> None:
    collector, sandbox = site.collector, site.sandbox
    buy = {"millicredits": GIVEN, "success_url": "https://shop.example/paid"}

    def checkout() -> int:
        return collector.send("POST", "/billing/checkout?customer=bolt-drilled", buy).status

    assert [checkout(), site.hear("evt_before", OLD), site.hear("evt_guessed", NEW)] == [201, 200, 400]
    sandbox.faults({"kind": "refused", "path": "/v1"})  # The old key has expired.
    assert checkout() == 503
    site.key.write_text(NEW_KEY)
    site.secrets.write_text(f"{NEW}\n{OLD}\n")
    site.restart()
    sandbox.faults()
    assert [checkout(), site.hear("evt_by_old", OLD), site.hear("evt_by_new", NEW)] == [201, 200, 200]
    assert all(event in site.say("webhooks") for event in ("evt_before", "evt_by_old", "evt_by_new"))
    site.secrets.write_text(NEW)
    site.restart()
    assert [site.hear("evt_stolen", OLD), site.hear("evt_after", NEW)] == [400, 200]
    # Events encrypted with the old secret can still be applied.
    site.say("replay", "evt_before")

    def applied() -> bool:
        states = collector.execute("SELECT DISTINCT state FROM webhook_events WHERE object = 'in_drill'")
        return states == [("applied",)]

    until(applied, "all events are applied, and the one that was stolen is none")
    assert "evt_stolen" not in site.say("webhooks")
    for secret in (KEY, NEW_KEY, OLD, NEW):
        assert secret not in collector.output
