"""PostgreSQL tables with a separate owner: the collector's login can read and write rows, and nothing more."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.ownership import grant_rights
from edgeproxy.collector.database.schema import DAY, REVISION
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.collector import Collector
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.books import Books, Clock, clock, of_days
from tests.support.made_up_versions import add_revisions

__all__ = ["clock"]

PAGE = ROOT / "docs/operations/collector.md"
NEW, EXISTING = re.findall(r"```sql\n(.*?)```", PAGE.read_text().partition("## An owner of its own\n")[2], re.DOTALL)
"""The page's SQL for an administrator: for a new database, and for a database whose login owns the tables."""
BEFORE = "0000"
"""A revision before the first."""
OWNER, LOGIN = "edgeproxy_owner", "edgeproxy"
NO_RIGHT, BAD_VALUE, NO_FUNCTION = "42501", "22023", "42883"
"""SQLSTATEs of refusals."""
ROLES = "SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname LIKE 'edgeproxy%'"
CREATE_HOSTILE = "CREATE OR REPLACE FUNCTION {} RETURNS void LANGUAGE sql AS ''"
MONTH = "date_trunc('month', now())::date"
ATTACKS = {
    # Security and the tables.
    "ALTER TABLE keys DISABLE ROW LEVEL SECURITY": NO_RIGHT,
    "ALTER TABLE keys NO FORCE ROW LEVEL SECURITY": NO_RIGHT,
    "DROP POLICY customer_rows ON keys": NO_RIGHT,
    "CREATE POLICY more ON keys TO edgeproxy_customer USING (true)": NO_RIGHT,
    "ALTER TABLE keys OWNER TO edgeproxy": NO_RIGHT,
    "ALTER TABLE keys ADD COLUMN more text": NO_RIGHT,
    "DROP TABLE keys": NO_RIGHT,
    "DROP TABLE ledger_2026_09": NO_RIGHT,
    "ALTER TABLE ledger DETACH PARTITION ledger_2026_09": NO_RIGHT,
    "SELECT FROM ledger_2026_09": NO_RIGHT,
    "TRUNCATE batches": NO_RIGHT,
    "CREATE TRIGGER more BEFORE UPDATE ON keys EXECUTE FUNCTION suppress_redundant_updates_trigger()": NO_RIGHT,
    "CREATE RULE more AS ON DELETE TO keys DO INSTEAD NOTHING": NO_RIGHT,
    "CREATE TABLE more ()": NO_RIGHT,
    "CREATE SCHEMA more": NO_RIGHT,
    "ALTER DATABASE ledger OWNER TO edgeproxy": NO_RIGHT,
    "DROP SCHEMA public CASCADE": NO_RIGHT,
    # Rows that are only ever added.
    "UPDATE audit SET actor = 'somebody else'": NO_RIGHT,
    "DELETE FROM audit": NO_RIGHT,
    "DELETE FROM credit_entries": NO_RIGHT,
    "UPDATE invoice_lines SET amount = 0": NO_RIGHT,
    "UPDATE alembic_version SET version_num = '0001'": NO_RIGHT,
    # Attempts to become the owner.
    "SET ROLE edgeproxy_owner": NO_RIGHT,
    "SELECT set_config('role', 'edgeproxy_owner', false)": NO_RIGHT,
    "SET SESSION AUTHORIZATION edgeproxy_owner": NO_RIGHT,
    "GRANT edgeproxy_owner TO edgeproxy": NO_RIGHT,
    "REASSIGN OWNED BY edgeproxy_owner TO edgeproxy": NO_RIGHT,
    "ALTER ROLE edgeproxy BYPASSRLS": NO_RIGHT,
    "ALTER ROLE edgeproxy_owner PASSWORD 'ours'": NO_RIGHT,
    # The functions that run with the owner's rights.
    CREATE_HOSTILE.format("public.edgeproxy_create_partition(month date)"): NO_RIGHT,
    "ALTER FUNCTION edgeproxy_drop_partition(date) RESET ALL": NO_RIGHT,
    "ALTER FUNCTION edgeproxy_drop_partition(date) OWNER TO edgeproxy": NO_RIGHT,
    "SELECT edgeproxy_create_partition('ledger; DROP TABLE keys'::text)": NO_FUNCTION,
    **{
        f"SELECT edgeproxy_{verb}_partition({month})": BAD_VALUE
        for verb in ("create", "drop")
        for month in (
            *("NULL", "'infinity'", "'-infinity'", "'2026-09-02'"),
            *("'0001-01-01 BC'", "'1969-12-01'", "'10000-01-01'", "'5874897-12-01'"),
        )
    },
    "SELECT edgeproxy_create_partition('2026-09-01')": "42P07",
    "SELECT edgeproxy_drop_partition('2026-09-01')": BAD_VALUE,  # Its minutes are kept.
    "UPDATE rollup SET minutes_from = 9223372036854775807; SELECT edgeproxy_drop_partition('2001-01-01')": "42P01",
    f"SELECT edgeproxy_create_partition({MONTH}); UPDATE rollup SET minutes_from = 9223372036854775807;"
    f" SELECT edgeproxy_drop_partition({MONTH})": BAD_VALUE,
    "UPDATE minutes_floor SET seconds = 0": NO_RIGHT,
    "DELETE FROM minutes_floor": NO_RIGHT,
    "INSERT INTO minutes_floor VALUES (0)": NO_RIGHT,
    "SET ROLE edgeproxy_customer; SELECT edgeproxy_create_partition('2030-01-01')": NO_RIGHT,
}
"""Statements that an attacker with the login tries, each with the SQLSTATE of its refusal."""
SHADOWS = """
    CREATE TEMP TABLE rollup (minutes_from bigint);
    INSERT INTO pg_temp.rollup VALUES (9223372036854775807);
    CREATE TEMP TABLE minutes_floor (seconds bigint);
    INSERT INTO pg_temp.minutes_floor VALUES (0);
    CREATE TEMP TABLE ledger (series bigint, minute bigint, value bigint) PARTITION BY RANGE (minute);
    CREATE TEMP TABLE pg_inherits (inhparent oid, inhrelid oid);
    CREATE FUNCTION pg_temp.isfinite(date) RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean';
    CREATE FUNCTION pg_temp.to_char(timestamp, text) RETURNS text LANGUAGE sql AS 'SELECT ''keys''';
    SET search_path = pg_temp, public, pg_catalog;
"""
"""Objects that would replace the functions' own ones if the functions used the caller's search_path."""


class SeparateOwner:
    """A server with the page's roles, a database of the owner, and a collector configuration with the login."""

    def __init__(self, server: Postgresql, folder: Path) -> None:
        self.server = server
        self.collector = Collector(folder / "collector", self.url(LOGIN), retention={"minutes": "400day"})
        self.collector.write()

    def url(self, user: str) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.server.port}/ledger"

    def run_sql(self, statements: str, user: str = "postgres") -> str:
        return self.server.ask_in("ledger", statements, user=user)

    def run_command(self, name: str, owner: str | None = OWNER) -> tuple[int, str]:
        """Run `edgeproxy database NAME`. Return its exit code and its output."""
        environ = {} if owner is None else {"EDGEPROXY_DATABASE_OWNER": self.url(owner)}
        done = CliRunner().invoke(cli.app, ["database", name, "-c", str(self.collector.file)], env=environ)
        return done.exit_code, done.output.strip()

    def list_owners(self) -> str:
        """Return the owners of the collector's tables, sequences and functions."""
        return self.run_sql(
            "SELECT DISTINCT pg_get_userbyid(owner) FROM (SELECT relowner FROM pg_class WHERE relnamespace ="
            " 'public'::regnamespace UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace)"
            " AS all_of_it (owner)"
        )

    def fail_start(self) -> str:
        """Start a collector that fails to start, and return its output."""
        process = self.collector.begin()
        until(lambda: not process.running, "the process has ended", seconds=60)
        assert process.wait(10.0) == 2
        return process.output


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    """A server without a role of edgeproxy. `bare` removes the database and the roles of each test."""
    with closing(Postgresql(in_memory=True)) as server:
        server.ask(f"DROP ROLE {LOGIN}")
        yield server


def run_new(setting: SeparateOwner) -> None:
    """Create the owner and the login as the page says, without tables."""
    for statement in NEW.strip().split(";\n"):  # One by one: CREATE DATABASE cannot run in a transaction.
        setting.server.ask(statement)


@pytest.fixture
def bare(server: Postgresql, tmp_path: Path) -> Iterator[SeparateOwner]:
    """A setting before the administrator runs any SQL."""
    setting = SeparateOwner(server, tmp_path)
    with closing(setting.collector):
        yield setting
    server.ask("DROP DATABASE ledger WITH (FORCE)")
    server.ask(f"DROP ROLE {server.ask(ROLES)}")


@pytest.fixture
def separate(bare: SeparateOwner) -> SeparateOwner:
    run_new(bare)
    return bare


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeparateOwner]:
    """An owner with its tables, shared by tests that undo their changes."""
    with closing(Postgresql(in_memory=True)) as server:
        server.ask(f"DROP ROLE {LOGIN}")
        setting = SeparateOwner(server, tmp_path_factory.mktemp("shared-owner"))
        run_new(setting)
        assert setting.run_command("migrate")[0] == 0
        with closing(setting.collector):
            yield setting


def test_login_without_ownership_counts_and_manages_partitions(separate: SeparateOwner, clock: Clock) -> None:
    """The login counts usage, creates and drops monthly partitions, and still owns no object."""
    assert "there are no tables, and the user edgeproxy may not make them: have the owner run" in separate.fail_start()
    code, text = separate.run_command("migrate")
    assert (code, text.partition("; ")[2]) == (0, "edgeproxy reads and writes its rows")
    assert separate.run_command("rights") == (
        0,
        "row-level security is in force\nthe user edgeproxy reads and writes rows, and owns nothing",
    )
    collector = separate.collector.start()
    assert collector.metric("collector_row_security") == 1
    assert "could change its own tables" not in collector.output
    assert collector.post(Chain(since=int(time.time()) // 60 * 60 - 60).next()).status == 200
    collector.end()

    async def run() -> None:
        books = await Books.open(separate.url(LOGIN), clock, of_days(2, None, None))
        books.counted.update()
        for month in range(3):
            clock.now = NOON + month * 31 * DAY
            await books.ship(Chain(since=int(clock.now)).next())
        clock.now += DAY
        await books.roll_up()
        await books.retain()
        await books.close()

    async def retain() -> None:
        books = await Books.open(separate.url(LOGIN), clock, of_days(2, None, None))
        await books.retain()
        await books.close()

    partitions = (
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname LIKE 'ledger\\_____\\___'"
    )
    asyncio.run(run())
    assert {"ledger_2026_09", "ledger_2026_10"} <= set(separate.run_sql(partitions).split()), "the owner keeps them"
    separate.collector.settings["retention"] = {"minutes": "2day"}
    separate.collector.write()
    assert separate.run_command("migrate")[0] == 0
    asyncio.run(retain())
    names = separate.run_sql(partitions).split()
    assert "ledger_2026_11" in names, names
    assert not {"ledger_2026_09", "ledger_2026_10"} & set(names), names
    assert separate.list_owners() == OWNER


def test_each_attack_with_the_collectors_login_is_refused(shared: SeparateOwner) -> None:
    shared.run_sql("SELECT edgeproxy_create_partition('2026-09-01')", user=LOGIN)

    async def attack() -> None:
        for statement, expected in ATTACKS.items():
            connection = await asyncpg.connect(shared.url(LOGIN))
            try:
                await connection.execute(statement)
                state = None
            except asyncpg.PostgresError as error:
                state = error.sqlstate
            finally:
                await connection.close()
            assert state == expected, (statement, state)
        connection = await asyncpg.connect(shared.url(LOGIN))
        await connection.execute(SHADOWS)
        with pytest.raises(asyncpg.InvalidParameterValueError, match="the minutes of ledger_2026_09 are kept"):
            await connection.execute("SELECT public.edgeproxy_drop_partition('2026-09-01')")
        await connection.execute("SELECT public.edgeproxy_create_partition('2026-12-01')")
        await connection.close()

    asyncio.run(attack())
    parents = (
        "SELECT string_agg(DISTINCT inhparent::regclass::text, ' ') FROM pg_inherits JOIN pg_class ON pg_class.oid"
    )
    assert shared.run_sql(f"{parents} = inhrelid WHERE relname LIKE 'ledger\\_2026\\___'") == "ledger"
    assert shared.list_owners() == OWNER
    assert shared.run_command("rights")[0] == 0


def test_database_owned_by_the_login_moves_to_a_separate_owner(bare: SeparateOwner) -> None:
    """The counted usage is kept."""
    bare.server.ask(f"CREATE ROLE {LOGIN} LOGIN CREATEROLE")
    bare.server.ask(f"CREATE DATABASE ledger OWNER {LOGIN}")
    collector = bare.collector.start()
    chain = Chain(since=int(time.time()) // 60 * 60 - 120)
    assert collector.post(chain.next(("acme", "requests", "v1", 5))).status == 200
    assert "the user edgeproxy owns the tables, and could switch row-level security off" in collector.output
    bare.run_sql("ALTER TABLE keys NO FORCE ROW LEVEL SECURITY", user=LOGIN)  # The warning is true.
    collector.end()

    bare.run_sql(EXISTING)
    assert "lacks rights to" in bare.fail_start()
    code, text = bare.run_command("migrate")
    assert code == 0, text
    assert bare.list_owners() == OWNER
    collector = bare.collector.start()
    assert collector.metric("collector_row_security") == 1
    assert collector.post(chain.next(("acme", "requests", "v1", 7))).status == 200
    assert collector.usage(customer="acme")["total"] == 12
    with pytest.raises(AssertionError, match="must be owner"):
        bare.run_sql("ALTER TABLE keys NO FORCE ROW LEVEL SECURITY", user=LOGIN)


def test_collector_starts_only_after_the_owner_migrates(
    separate: SeparateOwner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert separate.run_command("migrate")[0] == 0
    separate.run_sql(f"UPDATE alembic_version SET version_num = '{BEFORE}'")
    assert f"is of revision {BEFORE}, not {REVISION}: have the owner run" in separate.fail_start()
    separate.run_sql(f"UPDATE alembic_version SET version_num = '{REVISION}'")
    (later,) = add_revisions(monkeypatch, tmp_path / "later", [True])
    assert separate.run_command("migrate")[0] == 0
    assert separate.run_sql("SELECT version_num FROM alembic_version") == later
    assert f"is of revision {later}, not {REVISION}: have the owner run" in separate.fail_start()


async def test_two_migrations_at_once_grant_rights_one_after_the_other(postgresql: Postgresql) -> None:
    _, url = postgresql.empty_database_of_owner()
    first, second = await Database.connect(url), await Database.connect(url)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def is_waiting() -> bool:
        async with first.reading() as connection:
            return bool(await connection.scalar(sa.text(waiting)))

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks, first.writing() as connection:
        await grant_rights(connection, "edgeproxy_login")
        tasks.create_task(second.grant_rights("edgeproxy_login"))
        while not await is_waiting():
            pass
    await first.close()
    await second.close()


@pytest.mark.parametrize(
    ("weaken", "restore", "why"),
    [
        (f"GRANT {OWNER} TO {LOGIN}", f"REVOKE {OWNER} FROM {LOGIN}", "owns the tables"),
        (
            f"ALTER ROLE {LOGIN} NOINHERIT; GRANT {OWNER} TO {LOGIN}; GRANT edgeproxy_collector TO {LOGIN}",
            f"ALTER ROLE {LOGIN} INHERIT; REVOKE {OWNER} FROM {LOGIN}",
            f"is a member of {OWNER}",
        ),
        (f"ALTER ROLE {LOGIN} CREATEROLE", f"ALTER ROLE {LOGIN} NOCREATEROLE", "by CREATEROLE"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", None, "may create tables and functions"),
        (f"GRANT TRUNCATE, UPDATE ON audit TO {LOGIN}", None, "has the rights UPDATE, TRUNCATE to audit"),
    ],
)
def test_rights_command_names_excess_rights_of_the_login(
    shared: SeparateOwner, weaken: str, restore: str | None, why: str
) -> None:
    """The owner's next migration revokes the rights that the owner may revoke."""
    shared.run_sql(weaken)
    code, text = shared.run_command("rights")
    assert why in text
    assert code == (why != "owns the tables"), "to own the tables is a choice"
    if restore is not None:
        shared.run_sql(restore)
    else:
        assert shared.run_command("migrate")[0] == 0
    assert shared.run_command("rights")[0] == 0


@pytest.mark.parametrize(
    "setting", ["role = 'edgeproxy_customer'", "row_security = off", "search_path = pg_temp, public"]
)
def test_rights_command_names_session_settings_stored_by_the_login(shared: SeparateOwner, setting: str) -> None:
    """A thief of the login can store such settings, and they survive a change of the password."""
    shared.run_sql(f"ALTER ROLE {LOGIN} SET statement_timeout = '1min'", user=LOGIN)
    code, text = shared.run_command("rights")
    assert (code, text.splitlines()[-1]) == (0, "its sessions begin with statement_timeout=1min")
    shared.run_sql(f"ALTER ROLE {LOGIN} SET {setting}", user=LOGIN)
    code, text = shared.run_command("rights")
    assert code == 1
    assert f"begin with {setting.partition(' ')[0]}=" in text
    assert 'have an administrator run ALTER ROLE "edgeproxy" RESET ALL' in text
    shared.run_sql(f"ALTER ROLE {LOGIN} RESET ALL; ALTER ROLE {LOGIN} SET search_path = public")
    assert shared.run_command("rights")[0] == 0
    shared.run_sql(f"ALTER ROLE {LOGIN} RESET ALL")


def test_collector_reports_altered_settings_of_its_login(shared: SeparateOwner) -> None:
    shared.run_sql(f"ALTER ROLE {LOGIN} SET search_path = pg_temp, public", user=LOGIN)
    collector = shared.collector.start()
    assert collector.metric("collector_row_security") == 0
    assert "somebody has altered the settings of the collector's login" in collector.output
    collector.end()
    shared.run_sql(f"ALTER ROLE {LOGIN} RESET ALL")


def test_migrate_refuses_an_owner_url_of_another_database(separate: SeparateOwner) -> None:
    for owner, why in (
        (
            f"postgresql://{OWNER}:SECRET@localhost/other",
            ":***@localhost/other is another database",
        ),
        ("sqlite:///ledger.db", "is another database than"),
        ("mysql://x@y/z", "is not a database"),
        (separate.url(LOGIN), "may not make them"),
    ):
        done = CliRunner().invoke(
            cli.app, ["database", "migrate", "-c", str(separate.collector.file), "--owner", owner]
        )
        assert done.exit_code == 2, owner
        assert why in done.output
        assert "SECRET" not in done.output
