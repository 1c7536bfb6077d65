"""Versions before and after this one, made of its sources, as the tables have one revision so far."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from alembic.config import Config

import edgeproxy
from edgeproxy.collector.commands import database as database_commands
from edgeproxy.collector.database import database, migrate
from edgeproxy.collector.database.schema import REVISION
from loadtest.testbed.process import PACKAGE

VERSIONS = "edgeproxy/collector/database/migrations/versions"
BEFORE = f"{edgeproxy.__version__}-before"
"""The version name of the previous release."""
TABLE, COLUMN = "edges", "made_up_{}"
SOURCE = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = {revision!r}, {before!r}


def upgrade() -> None:
    op.add_column({table!r}, sa.Column({column!r}, sa.Text))
"""
DOWNGRADE = """

def downgrade() -> None:
    op.drop_column({table!r}, {column!r})
"""


def unpack_version_before(folder: Path) -> None:
    """Put the sources of a version with the tables of today into a folder; it calls itself BEFORE."""
    _copy_sources(folder)
    package = folder / "edgeproxy" / "__init__.py"
    package.write_text(package.read_text().replace(f'"{edgeproxy.__version__}"', f'"{BEFORE}"'))


def unpack_version_after(folder: Path) -> None:
    """Put the sources of a version whose tables have one more revision into a folder."""
    _copy_sources(folder)
    write_revisions(folder / VERSIONS, [True])


def _copy_sources(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(PACKAGE, folder / "edgeproxy", ignore=ignored)


def write_revisions(folder: Path, reversible: Iterable[bool]) -> list[str]:
    """Write revisions after the newest one, each with a new column. Return their numbers."""
    revisions, before = [], REVISION
    for is_reversible in reversible:
        revision = f"{int(before) + 1:04}"
        source = SOURCE + (DOWNGRADE if is_reversible else "")
        names = {"revision": revision, "before": before, "table": TABLE, "column": COLUMN.format(revision)}
        (folder / f"{revision}_made_up.py").write_text(source.format(**names))
        revisions.append(before := revision)
    return revisions


def add_revisions(monkeypatch: pytest.MonkeyPatch, folder: Path, reversible: Iterable[bool]) -> list[str]:
    """Let this process know revisions after the newest, as a later version would; return their numbers."""
    folder.mkdir()
    revisions = write_revisions(folder, reversible)
    build_config = migrate._build_config

    def build_extended(connection: object) -> Config:
        config = build_config(connection)  # type: ignore[arg-type]
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{PACKAGE.parent / VERSIONS}\n{folder}")
        return config

    monkeypatch.setattr(migrate, "_build_config", build_extended)
    for module in (database, database_commands):
        monkeypatch.setattr(module, "REVISION", revisions[-1])
    return revisions
