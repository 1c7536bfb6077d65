"""The machine and programs of a measurement, without which its figures mean nothing."""

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench import nginx
from loadtest.bench.load import wrk

_ASK = """
import json, platform, sysconfig
from importlib.metadata import PackageNotFoundError, version
from edgeproxy.base.build import describe_build
def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
print(json.dumps({
    "version": platform.python_version(),
    "configured": sysconfig.get_config_var("CONFIG_ARGS") or "",
    "uvloop": of("uvloop"),
    "aiohttp": of("aiohttp"),
    "build": describe_build(),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """`configured` are the arguments of its ./configure."""

    path: str
    version: str
    configured: str
    uvloop: str
    aiohttp: str
    build: str
    """That of its installed edgeproxy: compiled or pure."""

    @property
    def pgo(self) -> bool:
        """Built with profile-guided optimisation, which is worth about 1 µs a request."""
        return self._debian or "--enable-optimizations" in self.configured

    @property
    def lto(self) -> bool:
        return self._debian or "--with-lto" in self.configured

    @property
    def _debian(self) -> bool:
        """Debian's and Ubuntu's packages are built with both, by make targets that leave no trace in the arguments."""
        return "/usr/share/python-wheels" in self.configured

    def __str__(self) -> str:
        built = " + ".join(name for name, is_so in (("PGO", self.pgo), ("LTO", self.lto)) if is_so)
        return f"Python {self.version}, {built or 'plain build (no PGO, no LTO)'}, uvloop {self.uvloop}"


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    kernel: str
    nginx: str
    wrk: str
    load: float


def interpreter(path: Path) -> Interpreter:
    """Ask the interpreter at `path` itself; raises CalledProcessError if it does not run."""
    result = subprocess.run([path, "-c", _ASK], capture_output=True, text=True, timeout=30, check=True, cwd="/")
    return Interpreter(path=str(path), **json.loads(result.stdout))


def this() -> Machine:
    """Return this machine. `load` is the load average of the last minute: above 0.3, other work runs here."""
    return Machine(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        nginx=nginx.version() if nginx.binary() else "not installed",
        wrk=wrk.version(),
        load=round(os.getloadavg()[0], 2),
    )


def cpu_model(cpuinfo: str) -> str:
    """The model in the text of /proc/cpuinfo."""
    match = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    return match[1] if match else platform.machine()
