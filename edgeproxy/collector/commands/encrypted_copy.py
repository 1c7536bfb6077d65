"""A copy of a SQLite database, encrypted for a public key of age (https://age-encryption.org)."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeproxy.collector.database.database import Database, open_owner_only
from edgeproxy.config.environment import build_child_environment

PROGRAM = "age"


class EncryptionFailedError(OSError):
    """The program failed to encrypt, or is not installed."""


def copy_encrypted(database: Database, to: Path, recipient: str) -> int:
    """Write a copy to a new file, encrypted for this recipient. Return its size in bytes.

    The file is complete or missing. A plain copy exists meanwhile in a folder readable only by its owner. Raises
    sqlite3.Error and OSError.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise EncryptionFailedError(f"the program {PROGRAM} is not on this machine: apt install age")
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as folder:
        clear, encrypted = Path(folder) / "clear", Path(folder) / "encrypted"
        database.copy(clear)
        with open(encrypted, "xb", opener=open_owner_only) as target:
            arguments = [program, "--encrypt", f"--recipient={recipient}", str(clear)]
            environ = build_child_environment(os.environ)
            done = subprocess.run(arguments, stdout=target, stderr=subprocess.PIPE, text=True, check=False, env=environ)
            if done.returncode:
                raise EncryptionFailedError(done.stderr.partition("\n")[0] or f"{PROGRAM} ended with {done.returncode}")
            os.fsync(target.fileno())
        os.link(encrypted, to)
    return to.stat().st_size
