"""A Redis of a test's own: on a port of its own, killed, stopped and started again at will."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Redis:
    """A server that keeps nothing on disk."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        assert SERVER is not None
        self.port = free_port() if port is None else port
        self._command = [SERVER, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        listening = [] if "--tls-port" in self._command else ["--port", str(self.port)]
        self._process = subprocess.Popen([*self._command, *listening], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert any("eady to accept connections" in line for line in self._process.stdout), "the server did not start"

    def kill(self) -> None:
        """kill -9; nothing happens where it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def stop(self) -> None:
        """Let it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
