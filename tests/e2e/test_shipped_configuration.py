"""The files of config/ as shipped: two edges of two regions, their hub, the collector, a Stripe sandbox."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.api.examples import read_examples
from edgeproxy.collector.billing.stripe_sync.catalog import is_metered
from edgeproxy.collector.pages.job_groups import group_jobs
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.limits import Messages
from edgeproxy.wire import directory_signatures
from loadtest.testbed.collector import sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import until
from tests.support import absent_alerts
from tests.support.prometheus import SERVER as PROMETHEUS
from tests.support.prometheus import Prometheus
from tests.support.services import Httpbin
from tests.support.stripe_sandbox import KEY, Sandbox
from tests.support.visitor import Visitor

CONFIG = ROOT / "config"
COMMAND = (sys.executable, "-m", "edgeproxy")
REGIONS = ("eu-west", "us-east")
ADMIN = "admin-token"
METRICS = "demo-metrics-token"
LIFTED_SECONDS = 2.0
"""Seconds until a changed plan applies at every edge; ten times that in a run with other tests."""

ASKED: dict[str, dict[str, Any]] = {
    # requests a minute, requests at once, executions a day, workflows, days of detail, support
    "free": {"rate": 60, "at_once": 2, "daily": 12, "workflows": 5, "days": 7, "support": "Community"},
    "standard": {"rate": 600, "at_once": 10, "daily": 100, "workflows": 50, "days": 30, "support": "Priority"},
    "enterprise": {
        "rate": None,
        "at_once": None,
        "daily": None,
        "workflows": None,
        "days": 365,
        "support": "24/7 Dedicated",
    },
}
CAPS = {"request": 50_000, "day": 500_000, "session": 100_000}
METERS = {"requests", "api_calls", "llm_tokens", "agent_executions", "storage_gb", "seats", "workflows", "refusals"}


def shipped() -> CollectorSettings:
    return load_collector(CONFIG / "collector.yaml", {"PLANS": str(CONFIG / "plans.yaml")})


@pytest.mark.parametrize("name", ASKED)
def test_a_plan_has_the_numbers_that_were_asked_for(name: str) -> None:
    settings = shipped()
    plan = settings.plans[f"{name}@1"]
    tier = settings.tiers[plan.tier or name]
    quotas = {quota.meter: quota for quota in tier.quotas}
    daily, workflows = quotas.get("agent_executions"), quotas.get("workflows")
    assert {
        "rate": next((limit.count for limit in tier.limits if limit.window == 60), None),
        "at_once": None if tier.concurrency is None else tier.concurrency.max,
        "daily": None if daily is None else daily.included,
        "workflows": None if workflows is None else workflows.included,
        "days": (tier.analytics or 0) / 86400,
        "support": plan.entitlements["support"],
    } == ASKED[name]
    assert all(quota.cap == "hard" for quota in tier.quotas)
    assert daily is None or daily.per == "day"
    assert (tier.burst_credits is not None) == (name == "enterprise")
    caps = tier.caps
    assert caps is not None
    assert caps.session is not None
    assert {"request": caps.request, "day": caps.day, "session": caps.session.count} == CAPS
    assert plan.meters.keys() | {"requests", "workflows", "refusals"} == METERS


@pytest.mark.parametrize(("tier", "plan", "better"), [("free", "free", "standard"), ("pro", "standard", "enterprise")])
def test_message_of_each_kind_of_limit_has_its_amounts(tier: str, plan: str, better: str) -> None:
    message = shipped().tiers[tier].message
    assert isinstance(message, Messages), "one text would tell customers over a quota about requests in a minute"
    texts = {"rate": message.rate, "at_once": message.concurrency, "daily": message.quota}
    assert (message.plan, message.cap, message.budget, message.credits) == (None,) * 4
    for kind, text in texts.items():
        assert text is not None
        own, next_one = ASKED[plan][kind], ASKED[better][kind]
        assert text.startswith(f"{plan.title()} allows {own} ")
        assert text.endswith(f"{better.title()} allows {next_one}" if next_one else f"{better.title()} has no limit")


def test_shipped_plans_can_be_charged_by_stripes_meters(tmp_path: Path) -> None:
    for name in ("tiers.yaml", "plans.yaml"):
        shutil.copy(CONFIG / name, tmp_path)
    file = tmp_path / "collector.yaml"
    file.write_text((CONFIG / "collector.yaml").read_text().replace("# collection: meters", "collection: meters"))
    settings = load_collector(file, {"PLANS": str(CONFIG / "plans.yaml")})
    assert settings.billing is not None
    assert settings.billing.collection == "meters"
    priced = [
        version for version, plan in settings.plans.items() if any(meter.has_prices for meter in plan.meters.values())
    ]
    assert priced == [version for version, plan in settings.plans.items() if is_metered(plan)]
    assert "standard@1" in priced


def test_edge_and_collector_files_agree_and_have_features_on() -> None:
    settings = shipped()
    edge = load_edge(CONFIG / "edge.yaml", {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}=", "REGION": "eu-west"})
    assert (edge.tiers, edge.meters) == (settings.tiers, settings.meters)
    assert settings.meters.keys() > METERS
    assert edge.meters["api_calls"].count == "requests", "edges count what plans price"
    assert (edge.region, edge.security_headers, edge.hub.url) == ("eu-west", True, "redis://127.0.0.1:6379/0")
    assert (edge.directory.from_, settings.directory is not None) == ("collector", True)
    assert any(limit.algorithm == "hybrid" for route in edge.routes for limit in route.limits)
    assert settings.billing is not None
    assert settings.billing.credits is not None
    assert settings.billing.credits.packages[0] == 1000
    assert settings.billing.tax.stripe_tax is False


# ---- running


class Company:
    """The running servers of the shipped files, with an admin's token beside the file's tokens."""

    def __init__(self, folder: Path, api: int, ends: ExitStack) -> None:
        trust = directory_signatures.create_key_file(folder / "directory.key")
        redis = ends.enter_context(Redis(folder))
        sandbox = ends.enter_context(closing(Sandbox(folder / "stripe").start()))
        ports = Ports(1 + 2 * len(REGIONS))
        ends.callback(ports.close)
        self.port, *rest = ports.numbers
        own = {"include": [str(CONFIG / "collector.yaml")]}
        own["tokens"] = [{"name": "admin", "role": "admin", "sha256": sha256(ADMIN)}]  # type: ignore[list-item]
        self.file = folder / "collector.yaml"
        self.file.write_text(yaml.safe_dump(own))
        self.environ = {
            "COLLECTOR_LISTEN": f"{HOST}:{self.port}",
            "COLLECTOR_DATABASE": f"sqlite:///{folder}/ledger.db",
            "COLLECTOR_URL": f"http://{HOST}:{self.port}",
            "DIRECTORY_KEY": str(folder / "directory.key"),
            "DIRECTORY_TRUST": trust,
            "PLANS": str(CONFIG / "plans.yaml"),
            "BILLING_MODE": "live",
            "METRICS_TOKENS": f"prometheus:{sha256(METRICS)}",
            "STRIPE_BASE": sandbox.url,
            "STRIPE_SECRET_KEY": KEY,
            "HUB_URL": redis.url,
            "API_URL": f"http://{HOST}:{api}",
        }
        self._start(ends, folder, self.port, "collector", "-c", str(self.file))
        self.edges: dict[str, int] = {}
        self.admins: dict[str, int] = {}
        for region, port, admin in zip(REGIONS, rest[::2], rest[1::2], strict=True):
            where = {"EDGE_LISTEN": f"{HOST}:{port}", "EDGE_ADMIN": f"{HOST}:{admin}", "REGION": region}
            where["EDGE_STATE"] = str(folder / region)
            self._start(ends, folder, admin, "edge", "-c", str(CONFIG / "edge.yaml"), **where)
            self.edges[region], self.admins[region] = port, admin

    def _start(self, ends: ExitStack, folder: Path, port: int, *command: str, **environ: str) -> None:
        process = Process([*COMMAND, *command], folder / f"log-{port}", environ={**self.environ, **environ})

        def end() -> None:
            process.stop()
            print(process.output[-8000:])  # pytest shows it if the test failed

        ends.callback(end)

        def is_ready() -> bool:
            assert process.running, process.output
            try:
                return ask(port, "/readyz").status == 200
            except OSError:
                return False

        until(is_ready, f"{command[0]} is ready")

    def call(self, method: str, path: str, body: object = None, token: str = ADMIN) -> Any:
        """Send a request to the collector. Require success and return the answer."""
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        sent = None if body is None else orjson.dumps(body)
        answer = ask(self.port, path, method=method, fields=fields, body=sent)
        assert answer.status < 300, (method, path, answer)
        return answer.json() if answer.body else None

    def command(self, *arguments: str) -> str:
        """Run a command. Require success and return its output."""
        done = CliRunner().invoke(cli.app, arguments, env=self.environ)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def join(self, name: str, plan: str | None) -> None:
        """Create a customer with a key, whom both edges serve, and a plan. Few may subscribe in a minute."""
        self.call("POST", "/v1/customers", {"name": name, "tier": "free"})
        key = {"sha256": sha256(key_of(name)), "name": "key"}
        self.call("POST", f"/v1/customers/{name}/keys", key)
        if plan is not None:
            self.call("POST", f"/billing/subscription?customer={name}", {"plan": plan})
        for region in REGIONS:
            until(lambda region=region: self.send(region, name).status == 200, "the key works")  # type: ignore[misc]

    def send(self, region: str, name: str, path: str = "/get") -> Answer:
        return ask(self.edges[region], path, key=key_of(name))

    def report(self, name: str, meter: str, value: int, **dimensions: str) -> list[str]:
        """Report usage as a service does. Returns the reasons of refusals."""
        event: dict[str, Any] = {"id": f"{name}-{meter}-{value}-{time.monotonic_ns()}", "source": "agents"}
        event |= {"customer": name, "meter": meter, "value": value}
        if dimensions:
            event["dimensions"] = dimensions
        body = self.call("POST", "/v1/events", [event], token="demo-service-token")
        return [one["error"] for one in body["rejected"]]

    def pages(self, name: str) -> Visitor:
        """Return a browser session of a contact who signed in by a printed link."""
        visitor = Visitor(f"http://{HOST}:{self.port}")
        visitor.get(self.command("sign-in", "--customer", name, "-c", str(self.file)))
        visitor.send("/sign-in/link")
        return visitor


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory, httpbin: Httpbin) -> Iterator[Company]:
    if SERVER is None:
        pytest.skip("there is no redis-server on this machine")
    with ExitStack() as ends:
        yield Company(tmp_path_factory.mktemp("company"), httpbin.port, ends)


def test_plan_prices_calls_through_an_edge_and_tokens_by_model(company: Company) -> None:
    company.join("acme", "standard")
    before = len(REGIONS)  # The requests that waited for the key; there may have been more.
    assert [company.send(region, "acme").status for region in REGIONS] == [200, 200]
    assert company.send("eu-west", "acme", "/status/404").status == 404

    def usage() -> dict[str, int]:
        return {
            meter["meter"]: meter["quantity"] for meter in company.call("GET", "/billing/usage?customer=acme")["meters"]
        }

    until(lambda: usage()["api_calls"] >= before + 2, "calls are on the plan's meter", step=1.0)
    for model, value in (("large", 1_000_500), ("small", 2_000)):
        assert company.report("acme", "llm_tokens", value, model=model, agent="triage") == []
    until(lambda: usage()["llm_tokens"] == 1_002_500, "tokens are on it too", step=1.0)

    def lines() -> dict[tuple[str, str | None, int], tuple[int, int]]:
        upcoming = company.call("GET", "/billing/invoices/upcoming?customer=acme")
        return {
            (line["meter"], line["value"], line["tier"]): (line["quantity"], line["amount"])
            for line in upcoming["lines"]
            if line["kind"] == "usage"
        }

    billed = lines()
    # 500 tokens of the large model at 0.003 cents, 2,000 of the small one at 0.0004.
    assert billed["llm_tokens", "large", 1] == (500, 2)
    assert billed["llm_tokens", "small", 1] == (2000, 1)

    def count() -> dict[str, int]:
        rows = company.call("GET", "/v1/usage?customer=acme&by=meter")["rows"]
        return {row["meter"]: row["value"] for row in rows}

    until(lambda: (by_meter := count())["requests"] > by_meter["api_calls"], "all is shipped")
    by_meter = count()
    assert by_meter["requests"] == by_meter["api_calls"] + 1, "a 404 is answered, and is no success"
    assert lines()["api_calls", None, 0] == (by_meter["api_calls"], 0)
    with company.pages("acme") as visitor:
        text = visitor.get("/account/month").text
        assert "LLM tokens by model" in text
        assert "large" in text
        assert "LLM tokens by agent" in text


def test_upgrade_lifts_the_limit_at_every_edge_and_a_storage_cap_holds(company: Company) -> None:
    company.join("dora", "free")
    while (answer := company.send("eu-west", "dora")).status == 200:
        pass
    assert answer.status == 429
    assert "Free allows 60 requests in any minute" in answer.json()["detail"]
    until(lambda: company.send("us-east", "dora").status == 429, "one limit over both regions")
    assert company.report("dora", "storage_gb", 1) == []
    (reason,) = company.report("dora", "storage_gb", 2)
    assert reason == "value: makes 2 of storage_gb, and the plan has a hard cap of 1"
    began = time.monotonic()
    company.call("PUT", "/billing/subscription?customer=dora", {"plan": "standard"})
    for region in REGIONS:
        until(lambda region=region: company.send(region, "dora").status == 200, "lifted", seconds=10 * LIFTED_SECONDS)  # type: ignore[misc]
    print(f"another plan held at both edges after {time.monotonic() - began:.2f} s")
    assert company.report("dora", "storage_gb", 2) == []
    answer = company.send("us-east", "dora")
    assert '"pro";q=600;w=60' in answer["ratelimit-policy"]

    def list_limits() -> set[str]:
        refused = company.call("GET", "/v1/usage?customer=dora&meter=refusals&by=limit")
        return {row["limit"] for row in refused["rows"]}

    until(lambda: "free" in list_limits(), "refusals are counted")
    assert list_limits() <= {"free", "concurrency"}, "the other region may hear late that a request is over"


def test_cost_of_answers_counts_towards_caps(company: Company) -> None:
    company.join("bolt", "enterprise")
    costly = "/response-headers?X-Cost=60000"
    served = 0
    while company.send("eu-west", "bolt", costly).status == 200:
        served += 1
    assert 2 <= served <= 3, "100,000 a session; the other worker may hear of the second answer after its next request"
    assert company.send("eu-west", "bolt", costly).json()["violated-policies"] == ["session"]


def test_customers_see_the_limits_of_their_tier(company: Company) -> None:
    company.join("emil", "free")
    assert company.report("emil", "storage_gb", 1) == []
    with company.pages("emil") as visitor:
        assert visitor.get("/account").text.count("Usage") > 0
        assert visitor.status == 200, "a week of detail is shown, whatever the day of the month"
        limits = visitor.get("/account/limits").text
        for shown in ("Community", "7 days back", "60 in 1 minute", "Requests at once2", "$0.05 for a request"):
            assert shown in "".join(limits.split("\n")), shown
        rows = [line for line in limits.split("\n") if line]
        assert "Included Storage GB" in rows
        plans = visitor.get("/account/plan").text
        for shown in ("Community", "Priority", "24/7 Dedicated", "600 requests in 1 minute", "30 days back", "large: "):
            assert shown in plans, shown


def test_customer_with_spent_allowances_still_reads_usage_and_invoices(company: Company) -> None:
    company.join("fay", "free")
    for meter, value in (("agent_executions", 200), ("llm_tokens", 13_000)):
        assert company.report("fay", meter, value) == []

    def execute(region: str) -> Answer:
        return ask(company.edges[region], "/post", method="POST", key=key_of("fay"), body=b"{}")

    for region in REGIONS:
        until(lambda region=region: execute(region).status == 429, "work is refused")  # type: ignore[misc]
        kinds = {execute(region).json()["limit"]["kind"] for _ in range(3)}
        assert kinds <= {"quota", "plan"}
        for path in ("/get", "/status/200"):
            assert company.send(region, "fay", path).status == 200, (region, path)
    token = company.call("POST", "/v1/tokens", {"name": "fay-ci", "customer": "fay"})["secret"]
    for path in ("/v1/usage?by=meter", "/billing/invoices", "/billing/invoices/upcoming", "/v1/customers/fay/quotas"):
        assert company.call("GET", path, token=token), path
    with company.pages("fay") as visitor:
        for path in ("/account", "/account/usage", "/account/month", "/account/invoices", "/account/data"):
            visitor.get(path)
            assert visitor.status == 200, path
        limits = visitor.get("/account/limits").text
        assert "Routes: post, anything, stream, priced" in limits
        assert "Routes: post, anything, stream, priced" in visitor.get("/account/plan").text


def test_customer_pages_have_a_separate_rate_limit_and_a_language(company: Company) -> None:
    company.join("gijs", "standard")
    assert company.report("gijs", "llm_tokens", 10, model="large") == []
    with company.pages("gijs") as visitor:
        visitor.get("/account/month?lang=nl")
        began, pages = time.monotonic(), 0
        while visitor.status == 200 and pages < 30:
            visitor.get("/account/month")
            pages += 1
        assert (visitor.status, pages) == (200, 30), "a page makes several calls, of which the API allows 100 a minute"
        assert time.monotonic() - began < 60
        text = visitor.read.text
        assert "LLM-tokens" in text
        assert "LLM tokens" not in text
        limits = visitor.get("/account/limits").text
        assert "Uitvoeringen van agents" in limits
        assert "Agent executions" not in limits


def test_upgrades_propose_tiers_that_plans_on_sale_have(company: Company) -> None:
    company.join("hans", "free")
    assert read_examples().fields["tier"] in shipped().tiers, "the description proposes it"
    answer = ask(
        company.port,
        "/billing/upgrade?customer=hans&tier=gold",
        method="POST",
        fields={"Authorization": f"Bearer {ADMIN}"},
    )
    assert answer.status == 422
    assert answer.json()["errors"][0]["detail"] == "no plan on sale has it; write one of free, pro, enterprise"
    upgraded = company.call("POST", "/billing/upgrade?customer=hans&tier=pro")
    assert upgraded["plan"] == "standard@1"


def test_lock_holding_jobs_are_marked(company: Company) -> None:
    def list_running() -> set[str]:
        jobs = company.call("GET", "/v1/jobs")["jobs"]
        return {job["name"] for job in jobs if job["running_since"] is not None and not job["holds_jobs"]}

    until(lambda: not list_running(), "all jobs rest but those that hold others")
    jobs = company.call("GET", "/v1/jobs")["jobs"]
    assert any(job["running_since"] for job in jobs if job["holds_jobs"])
    holders = [job for job in jobs if job["holds_jobs"]]
    assert group_jobs(holders, time.time() + 86_400).late == []


def scrape(port: int, host: str, token: str = "") -> tuple[int, set[str]]:
    """Scrape as a Prometheus on another host. Returns the status and the names of the samples."""
    fields = {"Host": host, **({"Authorization": f"Bearer {token}"} if token else {})}
    answer = ask(port, "/metrics", fields=fields)
    families = text_string_to_metric_families(answer.body.decode()) if answer.status == 200 else ()
    return answer.status, {sample.name for family in families for sample in family.samples}


def test_shipped_token_lets_a_remote_prometheus_read_all_alert_metrics(company: Company) -> None:
    until(lambda: "billing_liability_usd" in scrape(company.port, "collector:9100", METRICS)[1], "figures are computed")
    assert scrape(company.port, "collector:9100")[0] == 401
    assert scrape(company.port, "collector:9100", "demo-read-token")[0] == 401
    company.join("mia", None)  # An edge without requests has shipped nothing, and the collector does not know it.

    def list_missing() -> set[str]:
        status, collector = scrape(company.port, "collector:9100", METRICS)
        assert status == 200
        edge = scrape(company.admins["eu-west"], f"{HOST}:{company.admins['eu-west']}")[1]
        return set(absent_alerts.list_required()) - collector - edge

    until(lambda: "collector_edge_gaps" not in list_missing(), "the edge has shipped a batch", step=1.0)
    assert list_missing() == set(), "an alert would fire at an edge or a collector that is well"


PROXY_SETTINGS = """
daemon off; master_process off; {user} pid {folder}/nginx.pid; error_log stderr warn;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen [::1]:{port};
        location / {{ proxy_pass http://{host}:{collector}; proxy_set_header X-Forwarded-For $remote_addr; }}
    }}
}}
"""


@pytest.mark.nginx
@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on this machine")
def test_money_metrics_over_a_proxy_need_the_shipped_token(company: Company, nginx: str, tmp_path: Path) -> None:
    with ExitStack() as ends:
        (port,) = ends.enter_context(closing(Ports(1))).numbers
        values = {"folder": tmp_path, "host": HOST, "port": port, "collector": company.port, "user": "user root;"}
        (tmp_path / "nginx.conf").write_text(PROXY_SETTINGS.format(**values))
        proxy = Process([nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr"], tmp_path / "log")
        ends.callback(proxy.stop)
        targets: dict[str, int | str] = {"edgeproxy": company.admins["eu-west"], "probe": company.admins["us-east"]}
        targets["collector"] = f"[::1]:{port}"
        scraping = ends.enter_context(closing(Prometheus(tmp_path / "prometheus", targets)))
        until(lambda: scraping.asked("billing_liability_usd"), "the prepaid amount is known")
        (sample,) = scraping.asked("billing_liability_usd")
        assert (sample["metric"]["job"], sample["metric"]["instance"]) == ("collector", f"[::1]:{port}")
        connection = ends.enter_context(closing(HTTPConnection("::1", port, timeout=10)))
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 401
    for path in ("/billing/invoices", "/billing/report", "/v1/usage", "/billing/balance?customer=hans"):
        refused = ask(company.port, path, fields={"Authorization": f"Bearer {METRICS}"})
        assert refused.status == 401, (path, refused)


def test_an_operator_runs_checks_sees_baselines_and_previews_a_close_over_http(company: Company) -> None:
    company.call("POST", "/v1/customers", {"name": "jan", "tier": "free"})
    result = company.call("POST", "/v1/checks")
    assert (result["usage"], result["spending"]) == ("run", "run")
    alerts = {alert["customer"] for alert in company.call("GET", "/v1/alerts?kind=spend_spike")["alerts"]}
    assert set(result["alerted"]) <= alerts
    assert company.call("POST", "/v1/checks")["alerted"] == [], "a customer has one alert a day"
    (entry, *_) = company.call("GET", "/v1/audit?action=checks.run")["entries"]
    assert (entry["target"], entry["after"]["usage"]) == ("checks", "run")
    baselines = company.call("GET", "/v1/customers/jan/baselines")
    assert baselines == {"customer": "jan", "built_at": None, "baselines": []}, "three weeks of usage are needed"
    month = time.strftime("%Y-%m", time.gmtime())

    def agrees() -> bool:
        """Return whether the command shows equal counts; invoices continue meanwhile."""
        printed = company.command("billing", "close", "--period", month, "--dry-run", "-c", str(company.file))
        counts = {state: int(count) for count, state in re.findall(r"^(\d+) invoices? (\w+)$", printed, re.MULTILINE)}
        closing: dict[str, int] = company.call("GET", f"/billing/invoices/closing?period={month}")["invoices"]
        return counts == closing

    until(agrees, "the command and the API show the same")
    for path in ("/v1/checks", "/v1/customers/jan/baselines", f"/billing/invoices/closing?period={month}"):
        method = "POST" if path == "/v1/checks" else "GET"
        fields = {"Authorization": "Bearer demo-service-token"}
        assert ask(company.port, path, method=method, fields=fields).status == 403, path
