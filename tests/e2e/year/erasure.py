"""The erasure of people at the end of the year, by command and by the API, and the restore of earlier backups."""

import shutil
from pathlib import Path

from loadtest.testbed.postgresql import Postgresql
from tests.e2e.year.plan import Person
from tests.e2e.year.side import Side

WRITTEN_ANEW = ("VACUUM (FULL, ANALYZE)", "VACUUM FULL pg_statistic", "CHECKPOINT")
"""Statements that purge deleted rows from the files of a database, and from the planner's statistics."""
NEXT_WAL = "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()"


def keep_no_wal(server: Postgresql) -> None:
    """Make a server delete old WAL files, because recycled files keep their old content."""
    server.ask("ALTER SYSTEM SET wal_recycle = off")
    server.ask("SELECT pg_reload_conf()")


def erase_by_command(side: Side, person: Person) -> None:
    """Erase a person now."""
    pseudonym = side.find_pseudonym(person.name)
    assert f"{pseudonym} is erased" in side.run("privacy", "erase", "-c", side.collector.file, pseudonym, "--yes")


def delete(side: Side, person: Person) -> None:
    """Start the deletion of a person, who is erased after the grace time."""
    side.send("DELETE", f"/v1/customers/{side.find_pseudonym(person.name)}")


def is_erased(side: Side, pseudonym: str) -> bool:
    """Return whether only a customer's pseudonym is left here, and only invoices at Stripe."""
    customer = side.send("GET", f"/v1/customers/{pseudonym}").json()
    return bool(customer["state"] == "deleted" and customer["name"] == pseudonym)


def back_up(side: Side, server: Postgresql) -> Path:
    """Back up a side's database, and return the file."""
    file, url = side.apart / "backup", str(side.collector.settings["database"])
    if side.is_on_sqlite:
        side.run("backup", "-c", side.collector.file, file)
    else:
        shutil.move(server.dump(url, "--enable-row-security", "--compress=0"), file)  # The search reads no deflate.
    return file


def restore(side: Side, server: Postgresql, backup: Path) -> None:
    """Replace the database of a stopped collector with a backup."""
    if side.is_on_sqlite:
        for file in side.database_file.parent.glob("ledger.db*"):
            file.unlink()
        shutil.copy(backup, side.database_file)
    else:
        side.collector.settings["database"] = url = server.empty_database()
        file = Path(shutil.copy(backup, server.backups))  # The server's user may not read files of the tests.
        file.chmod(0o644)
        server.restore(file, url)
        file.unlink()


def purge_deleted(side: Side, server: Postgresql) -> None:
    """Make the server rewrite the files of a side whose collector has ended, and start new WAL."""
    if not side.is_on_sqlite:
        for statement in WRITTEN_ANEW:
            server.ask_in(side.database_name, statement)
        for _ in range(2):
            server.ask(NEXT_WAL)
            server.ask("CHECKPOINT")
