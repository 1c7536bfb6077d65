"""Price changes by command and API: each command of their page, who may, and texts that cannot be used."""

import itertools
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from string import Template
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.collector import ADMIN, READ, Collector
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import ROOT

PAGE = (ROOT / "docs/billing/price-changes.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
(PLANS,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
AT = "2099-01-01"
SOURCES = itertools.count(1)


@pytest.fixture(scope="module")
def selling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that sells, where `payer` has the plan whose price changes, and a token."""
    folder = tmp_path_factory.mktemp("selling")
    with closing(Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")) as collector:
        collector.start()
        send(collector, "POST", "/v1/customers", {"name": "payer", "tier": "basic"})
        send(collector, "POST", "/billing/subscription?customer=payer", {"plan": "standard"})
        yield collector


def send(collector: Collector, method: str, path: str, body: Any) -> Any:
    answer = collector.send(method, path, body)
    assert answer.status in (200, 201), answer
    return answer.json()


def edgeproxy(collector: Collector, line: str, token: str = ADMIN) -> tuple[int, str]:
    """Run a command line. Return its exit code and its output."""
    environ = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{collector.port}", "EDGEPROXY_TOKEN": token}
    done = CliRunner().invoke(cli.app, shlex.split(line)[1:], env=environ)
    return done.exit_code, done.output


def test_each_command_of_the_page_has_its_documented_effect(
    selling: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new-plans.yaml").write_text(PLANS)
    token = send(selling, "POST", "/v1/tokens", {"name": "of-payer", "customer": "payer"})["secret"]
    names: dict[str, str] = {}
    for line in LINES:
        command = Template(line).substitute(names)
        if "--why" in line:
            assert edgeproxy(selling, command, READ)[0] == 1
            assert edgeproxy(selling, command, token)[0] == 1
        code, text = edgeproxy(selling, command)
        assert code == 0, f"{command}\n{text}"
        assert ("nothing was changed" in text) == ("--dry-run" in line), text
        if "--dry-run" in line:
            assert selling.get("/billing/price-changes", token=ADMIN).json()["price_changes"] == []
            assert re.search(r"payer +standard@1 +standard@2 +99.00 USD +109.00 USD +10.00 USD\n", text), text
            assert re.search(r"standard@2 +meters.api_calls.included +100000 +150000\n", text), text
        if "--key" in line:
            assert edgeproxy(selling, command) == (code, text), "with the same key it is done once"
            (change,) = selling.get("/billing/price-changes", token=ADMIN).json()["price_changes"]
            names["CHANGE"] = change["id"]
            plan = selling.get("/billing/subscription/plan", token=token).json()
            assert (plan["plan"]["version"], plan["price_change"]["plan"]["fee"]) == ("standard@1", 10900)
            assert plan["price_change"]["at"] == "2099-01-01T00:00:00.000Z"
            assert {"term": "fee", "before": "9900", "after": "10900"} in plan["price_change"]["changes"]
        if line.endswith("versions"):
            assert re.search(r"standard@2 +scheduled +2099-01-01T00:00:00.000Z +10900 +0\n", text), text
    assert selling.get("/billing/subscription/plan", token=token).json()["price_change"] is None
    actions = [entry["action"] for entry in selling.get("/v1/audit", token=ADMIN, limit="1000").json()["entries"]]
    assert [action for action in actions if action.startswith("price_change")] == [
        *("price_change.schedule", "price_change.withdraw"),
    ]
    (alerts,) = [selling.get("/v1/alerts", token=ADMIN, limit="100").json()["alerts"]]
    assert len([alert for alert in alerts if alert["kind"] == "price_change_decided"]) == 2


def test_price_change_is_scheduled_only_with_the_digest_of_its_dry_run(selling: Collector) -> None:
    body = {"plans": "plans: {enterprise@2: {fee: '599'}}", "at": AT, "why": "dearer"}
    shown = send(selling, "POST", "/billing/price-changes?dry_run=true", body)
    assert (shown["id"], shown["effect"]["subscribers"], shown["effect"]["currencies"]) == (None, 0, [])
    for other in ({"at": "2099-01-02"}, {"plans": "plans: {enterprise@2: {fee: '600'}}"}):
        refused = selling.send("POST", "/billing/price-changes", body | other | {"digest": shown["digest"]})
        assert refused.status == 409, refused
    created = send(selling, "POST", "/billing/price-changes", body | {"digest": shown["digest"]})
    assert created["moves"] == shown["moves"]
    again = selling.send("POST", "/billing/price-changes", body)
    assert (again.status, again.json()["errors"][0]["detail"][:15]) == (422, "changes nothing")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = [
    ("plans: {standard@2: {fee: '1', free: yes}}", "line 1: plans.'standard@2'.free: unknown field"),
    ("plans:\n  standard@2:\n    fee: lots\n", "line 3: plans.'standard@2'.fee: "),
    ("plans:\n  standard@2: {fee: '${HOME}'}", "line 2: "),
    ("include: [/etc/passwd]\nplans: {standard@2: {fee: '1'}}", "line 1: include: names files"),
    ("plans: {}\ntls: {cert: /etc/passwd, key: /etc/shadow}", "line 2: tls: unknown field"),
    ("plans: {standard@2: {fee: '1', tier: nothing}}", "whose tier nothing is not there"),
    ("currency: eur\nplans: {standard@2: {fee: '1'}}", "has no price in usd, in which subscribers may be charged"),
    ("plans: {standard@2+payer: {fee: '1'}}", "is a price of standard@2, which is not there"),
    ("plans: {gold@1: {fee: '1', tier: basic}}", "is of a plan that is not sold"),
    ("plans: {standard@1: {fee: '1'}}", "was edited"),
    ("plans: [", "line 1: yaml: is not YAML"),
    ("plans: {standard@2: !!python/object/apply:os.system [id]}", "line 1: "),
    ("- 1", "line 1: yaml: is not a mapping"),
    ("\x00", "line 1: yaml: has the control character"),
    (BOMB, "line "),
    ("[" * 60_000, "line 1: "),
    ("plans:\n" + "".join(f"  p{n}: 1\n" for n in range(6000)), "line 2: "),
    ("x" * 70_000, "has 70000 characters"),
]
"""Invalid texts, and a part of each refusal."""


def test_texts_that_cannot_be_used_are_refused_with_the_place(selling: Collector) -> None:
    before = selling.get("/billing/plan-versions", token=ADMIN).json()

    def post(body: Any) -> Answer:
        """Send a request from a new address, because each address may send only a few a minute."""
        fields = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
        source = f"127.77.{selling.port % 200}.{next(SOURCES)}"
        path, content = "/billing/price-changes", orjson.dumps(body)
        return ask(selling.port, path, method="POST", fields=fields, body=content, source=source)

    for text, why in HOSTILE:
        answer = post({"plans": text, "at": AT, "why": "x"})
        assert answer.status == 422, (text[:80], answer)
        faults = [error["detail"] for error in answer.json()["errors"]]
        assert any(why in fault for fault in faults), (text[:80], faults)
        assert len(faults) <= 20
        assert "root" not in answer.body.decode()
    assert post({"plans": "x" * (1 << 20), "at": AT, "why": "x"}).status == 413
    for at in ("2020-01-01", "2099-01-01T00:00:30Z", "2199-01-01", "soon", 5):
        answer = post({"plans": "plans: {standard@9: {fee: '1'}}", "at": at, "why": "x"})
        assert (answer.status, [error["field"] for error in answer.json()["errors"]]) == (422, ["at"]), answer
    assert selling.get("/billing/plan-versions", token=ADMIN).json() == before
