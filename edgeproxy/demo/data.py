"""The folder of a demonstration: what stays between two starts of it, and the secrets that it made up."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

FOLDERS_MAX = 10
"""Demonstrations that can run at once, from one checkout."""

STARTING = "starting"
"""A file in a folder that was empty, until the first start is complete."""


class FolderInUseError(Exception):
    """All folders for data are in use by demonstrations that run."""


class Data:
    """A folder that no other demonstration uses until this process ends."""

    def __init__(self, folder: Path) -> None:
        """Use this folder; while another demonstration does, one beside it. Raises FolderInUseError."""
        for number in range(1, FOLDERS_MAX + 1):
            self.folder = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                continue
            if (self.folder / STARTING).exists():
                self._empty()
            if not any(self.folder.iterdir()):
                (self.folder / STARTING).touch()
            file = self.folder / "secrets.json"
            self.is_new = not file.exists()
            self._secrets: dict[str, str] = {} if self.is_new else json.loads(file.read_text())
            return
        raise FolderInUseError(f"{FOLDERS_MAX} demonstrations run already with data beside {folder}")

    def complete(self) -> None:
        """Keep the data from now on. Until then the next start begins again, because half of it is missing."""
        (self.folder / STARTING).unlink(missing_ok=True)

    def _empty(self) -> None:
        for entry in sorted(self.folder.iterdir(), key=lambda entry: entry.name == STARTING):  # The mark goes last.
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def path(self, name: str) -> Path:
        """Return the path of a file or a folder of this name, in a folder that is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def secret(self, name: str, create: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> str:
        """Return a secret, which is created the first time."""
        if name not in self._secrets:
            self._secrets[name] = create()
            self.write("secrets.json", json.dumps(self._secrets, indent=1))
        return self._secrets[name]

    def find_secret(self, name: str) -> str | None:
        """Return a secret, or None if it was not created."""
        return self._secrets.get(name)

    def write(self, name: str, text: str) -> Path:
        """Write a file for its owner alone, whole or not at all; return its path."""
        path = self.path(name)
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        return new.replace(path)

    def close(self) -> None:
        """Leave the folder to others."""
        os.close(self._lock)
