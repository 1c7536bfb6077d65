"""The sources from before the newest migration, as the version to upgrade from and to go back to."""

import shutil
import subprocess
from pathlib import Path

import pytest

import edgeproxy
from edgeproxy.collector.database.schema import REVISION
from loadtest.testbed.process import ROOT

MIGRATIONS = "edgeproxy/collector/database/migrations/versions"
BEFORE = f"{edgeproxy.__version__}-before"
"""What the earlier version is made to call itself."""


def unpack_version_before(folder: Path) -> str:
    """Put the sources from before the newest migration into a folder; return the revision of their tables."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    if shutil.which("git") is None or git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("there is no history of the sources here")
    (newest,) = (ROOT / MIGRATIONS).glob(f"{REVISION}_*.py")
    commit = git("log", "--diff-filter=A", "--format=%H^", "-1", "--", str(newest.relative_to(ROOT)))
    folder.mkdir()
    archive = folder / "before.tar"
    git("archive", f"--output={archive}", commit, "edgeproxy")
    shutil.unpack_archive(archive, folder)
    package = folder / "edgeproxy" / "__init__.py"
    package.write_text(package.read_text().replace(f'"{edgeproxy.__version__}"', f'"{BEFORE}"'))
    return max(path.name[:4] for path in (folder / MIGRATIONS).glob("[0-9]*.py"))
