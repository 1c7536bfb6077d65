"""`edgeproxy billing close` and `billing invoices`."""

import asyncio
import time
from pathlib import Path

from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.billing.rating.periods import period_at
from tests.support.sold import KEY, sold
from tests.support.stripe_sandbox import Sandbox


def test_a_period_is_closed_by_command_once_and_listed(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    period = period_at(period_at(time.time()).start - 86400)
    month = time.strftime("%Y-%m", time.gmtime(period.start))
    name = f"by-command-{database.partition(':')[0].partition('+')[0]}"

    async def sell() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, _):
            await shop.customer(name, "standard", now=period.start)
            await shop.use(name, {"agent_executions": 5003}, at=period.start + 86400)

    def say(*words: str) -> tuple[int, str]:
        command = ["billing", *words[:1], "-c", str(tmp_path / "collector.yaml"), *words[1:]]
        done = CliRunner().invoke(cli.app, command, env=KEY)
        return done.exit_code, done.output

    asyncio.run(sell())
    code, output = say("close", "--period", month, "--dry-run")
    assert (code, output.strip()) == (0, "1 invoice closing"), "the first fee, and nothing is done"
    for _ in range(2):
        code, output = say("close", "--period", month)
        assert (code, output.strip()) == (0, "2 invoices open")
    code, output = say("invoices", "--customer", name, "--state", "open")
    assert code == 0
    assert sorted(line.split()[4] for line in output.splitlines()) == ["$99.00", "$99.30"]
    assert say("invoices", "--customer", "nobody")[0] != 0
    assert say("invoices", "--state", "held") == (0, "there is no such invoice\n")
