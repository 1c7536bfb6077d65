"""Application servers: their commands, and how long they keep an idle connection."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")


@dataclass(frozen=True)
class Means:
    """The paths of programs that servers need."""

    python: str
    """A Python with aiohttp, uvicorn, gunicorn and Django."""
    modules: str = ""
    """A folder `node_modules` with Express."""
    folder: Path = field(default_factory=Path)
    """The directory for programs to be built."""


@dataclass(frozen=True)
class Server:
    """An application server."""

    command: "Callable[[Means, int], list[str]]"
    """(means, port) -> command. Raises FileNotFoundError if a required program is missing."""
    keeps: float
    """Seconds that it keeps an idle connection: its default, or the value set here if it has none. 0 closes the
    connection after each answer.
    """
    clients: int = 32
    """Concurrent clients. If a server's backlog is short, the kernel resets further connections, even without an
    edge.
    """


def uvicorn(means: Means, port: int) -> list[str]:
    return [
        *(means.python, "-m", "uvicorn", "--app-dir", str(PROGRAMS), "asgi:application", "--host", "127.0.0.1"),
        *("--port", str(port), "--log-level", "warning"),
    ]


def gunicorn(means: Means, port: int, *options: str) -> list[str]:
    return [
        *(means.python, "-m", "gunicorn", "--chdir", str(PROGRAMS), "wsgi:application", "--log-level", "warning"),
        *("--bind", f"127.0.0.1:{port}", *options),
    ]


def gunicorn_sync(means: Means, port: int) -> list[str]:
    return gunicorn(means, port, "--workers", "4")


def gunicorn_threads(means: Means, port: int) -> list[str]:
    return gunicorn(means, port, "--worker-class", "gthread", "--threads", "16")


def aiohttp(means: Means, port: int) -> list[str]:
    return [means.python, str(PROGRAMS / "aiohttp_site.py"), str(port)]


def runserver(means: Means, port: int) -> list[str]:
    return [means.python, str(PROGRAMS / "django_site.py"), "runserver", "--noreload", f"127.0.0.1:{port}"]


def express(means: Means, port: int) -> list[str]:
    # `require` searches the program's directory and its parents, so the program must be beside the modules.
    program = Path(means.modules).parent / "edgeproxy-express.cjs"
    if not (Path(means.modules) / "express").is_dir():
        raise FileNotFoundError("node_modules with Express: --modules DIR")
    program.write_text((PROGRAMS / "express.cjs").read_text())
    return [program_of("node"), str(program), str(port)]


def php(means: Means, port: int) -> list[str]:
    return [program_of("php"), "-S", f"127.0.0.1:{port}", str(PROGRAMS / "index.php")]


def go(means: Means, port: int) -> list[str]:
    built = means.folder / "go-server"
    subprocess.run([program_of("go"), "build", "-o", str(built), str(PROGRAMS / "main.go")], check=True, timeout=300)
    return [str(built), str(port)]


def program_of(name: str) -> str:
    """Return the path of a program; raises FileNotFoundError."""
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


SERVERS = {
    "uvicorn": Server(uvicorn, 5.0),
    "gunicorn-sync": Server(gunicorn_sync, 0.0),
    "gunicorn-threads": Server(gunicorn_threads, 2.0),
    "aiohttp": Server(aiohttp, 2.0),
    "runserver": Server(runserver, 0.0, clients=8),
    "express": Server(express, 5.0),
    "php": Server(php, 0.0),
    "go": Server(go, 3.0),
}
