"""The modules of the load test's wheel: those that the command needs, and the replay of an access log.

The other commands of this folder compare builds, or measure the sources beside it: they need a checkout.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDER = Path(__file__).parent
BEGINNINGS = ("loadtest.__main__", "loadtest.locustfile", "loadtest.replay", "loadtest.upstream")
"""What starts as a process, or is for a file of the user."""


def find_file(module: str) -> Path | None:
    """Return the file of a module of this distribution, or None."""
    path = FOLDER.joinpath(*module.split(".")[1:])
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if module.split(".")[0] == "loadtest" and file.is_file()), None)


def list_imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, and names that may be modules."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{name.name}" for name in node.names))
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def list_needed() -> set[Path]:
    """Return the files of the beginnings and of all that they import."""
    waiting, needed = list(BEGINNINGS), set[Path]()
    while waiting:
        module = waiting.pop()
        file = find_file(module)
        if file is not None and file not in needed:
            needed.add(file)
            waiting += [*list_imported(file), module.rpartition(".")[0] or "loadtest"]
    return needed


class BuildNeeded(build_py):
    """A build without the modules that need a checkout."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        needed = list_needed()
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] == "__init__" or Path(module[2]).resolve() in needed]


setup(cmdclass={"build_py": BuildNeeded})
