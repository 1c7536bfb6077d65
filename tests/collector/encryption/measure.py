"""Measure the cost of column encryption: `python -m tests.collector.encryption.measure [sqlite] [postgresql]`.

Two databases have equal customers, and one is encrypted. The program alternates between them: it reads rows in this
process, then queries a collector on each over HTTP. Each figure is CPU time, the fifth percentile of all turns, because
other load only adds time and the minimum depends on chance. Even two equal collectors differ by a few percent.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import contacts, customers
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.encryption.keyring import open_keyring
from edgeproxy.config.collector.encryption import Encryption
from loadtest.bench.measure import cpu
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.postgresql import Postgresql
from tests.collector.encryption.test_rows import make_key
from tests.support.site import PagesStage

CUSTOMERS = 50
REPEATS = 20
"""Requests per turn."""
READ = {"Authorization": f"Bearer {ADMIN}"}


async def list_all(connection: AsyncConnection) -> None:
    """Read a list of customers."""
    assert len(await customers.list_customers(connection, None, CUSTOMERS)) == CUSTOMERS


async def read_one(connection: AsyncConnection) -> None:
    """Read a customer."""
    await customers.get_row(connection, "of-7")


async def read_contacts(connection: AsyncConnection) -> None:
    """Read a customer and its contacts."""
    assert len(await contacts.fetch_contacts(connection, "of-7")) == 2


ROWS: Mapping[str, tuple[int, Callable[[AsyncConnection], Awaitable[None]]]] = {
    f"rows: list of {CUSTOMERS} customers": (40, list_all),
    "rows: a customer": (100, read_one),
    "rows: a customer with its contacts": (60, read_contacts),
}
"""The kinds of reads, each with its repeats per turn."""
REQUESTS = {
    f"API: list of {CUSTOMERS} customers": (f"/v1/customers?limit={CUSTOMERS}", READ),
    "API: a customer": ("/v1/customers/of-7", READ),
    "API: contacts of a customer": ("/v1/customers/of-7/contacts", READ),
    "page: customers": ("/console/customers", {}),
    "page: a customer": ("/console/customers/of-7", {}),
}


def fill(stage: PagesStage) -> None:
    """Create customers with a value in each encrypted column."""
    for number in range(CUSTOMERS):
        new = {"name": f"of-{number}", "tier": "pro", "external_id": f"crm-{number:08}"}
        new |= {"metadata": {"alert_email": f"ada-{number}@example.com", "segment": "smb"}}
        assert stage.collector.send("POST", "/v1/customers", new).status == 201
        emails = {"emails": [f"{name}-{number}@example.com" for name in ("ada", "bob")]}
        assert stage.collector.send("PUT", f"/v1/customers/of-{number}/contacts", emails).status == 200


def print_ratio(what: str, took: list[list[float]]) -> None:
    """Print the fifth percentiles of the clear and of the encrypted database."""
    clear, encrypted = (sorted(side)[len(side) // 20] for side in took)
    print(f"  {what}: {clear * 1e6:,.0f} µs in the clear, {encrypted * 1e6:,.0f} encrypted, x {encrypted / clear:.3f}")


async def measure_rows(stages: list[PagesStage], key: Encryption, turns: int) -> None:
    """Print the CPU time of reading rows."""
    databases = [await Database.connect(stage.collector.settings["database"]) for stage in stages]
    await open_keyring(databases[1], key)
    for what, (repeats, read) in ROWS.items():
        took: list[list[float]] = [[], []]
        for turn in range(turns + 2):
            for side in (0, 1) if turn % 2 else (1, 0):
                async with databases[side].reading() as connection:
                    began = time.process_time()
                    for _ in range(repeats):
                        await read(connection)
                    took[side].append((time.process_time() - began) / repeats)
        print_ratio(what, took)
    for database in databases:
        await database.close()


def measure_requests(stages: list[PagesStage], turns: int) -> None:
    """Print the CPU time of requests, summed over all threads of a collector."""
    for what, (path, fields) in REQUESTS.items():
        took: list[list[float]] = [[], []]
        for turn in range(turns + 2):
            for side in (0, 1) if turn % 2 else (1, 0):
                client, process = stages[side].operator.client, stages[side].collector.process
                assert process is not None
                before = cpu.of_process(process.pid)
                for _ in range(REPEATS):
                    assert client.get(path, headers=fields).status_code == 200
                took[side].append((cpu.of_process(process.pid) - before).ran / 1e9 / REPEATS)
        print_ratio(what, took)


def main() -> None:
    parser = argparse.ArgumentParser(description="What encryption of columns costs.")
    parser.add_argument("kinds", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--rows-only", action="store_true", help="leave requests by HTTP out")
    options = parser.parse_args()
    for kind in options.kinds:
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            server = ends.enter_context(closing(Postgresql())) if kind == "postgresql" else None
            key, stages = make_key(folder / "master.key"), list[PagesStage]()
            for name, encrypted in (("clear", {}), ("encrypted", {"encryption": {"file": str(folder / "master.key")}})):
                (folder / name).mkdir()
                url = server.empty_database() if server else None
                stages.append(ends.enter_context(closing(PagesStage(folder / name, url, collector=encrypted))))
                fill(stages[-1])
            print(f"{kind}, the fifth percentile of {options.turns} turns:")
            asyncio.run(measure_rows(stages, key, options.turns))
            if not options.rows_only:
                measure_requests(stages, options.turns)


if __name__ == "__main__":
    main()
