"""nginx as an upstream and as a peer: its path, and the start of a configuration of ours."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from loadtest.bench.child import Child

_PREFACE = Path(__file__).with_name("nginx.conf")
# By the luck of a start glibc returns the buffers of each large answer to the kernel and asks for them again, which
# makes 1 MiB answers half as dear again. All nginx here are spared that (mallopt(3)).
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 28), "MALLOC_MMAP_THRESHOLD_": str(1 << 28)}
_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


@cache
def binary() -> str | None:
    """The path of nginx, also where sbin is not on the PATH of an ordinary user."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@cache
def build() -> str:
    """Return the output of `nginx -V`: version and configure arguments."""
    path = binary()
    if path is None:
        return ""
    return subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=True).stderr


def version() -> str:
    match = re.search(r"nginx version: (\S+)", build())
    return match[1] if match else "nginx of unknown version"


def modules() -> Path:
    """The folder of its dynamic modules."""
    match = re.search(r"--modules-path=(\S+)", build())
    return Path(match[1] if match else "/usr/lib/nginx/modules")


def fill(template: str, **values: object) -> str:
    """`template` with each @NAME@ replaced by that value; a name without a value is a KeyError."""
    return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), template)


def start(folder: Path, http: str, *, core: int, load_modules: tuple[str, ...] = ()) -> Child:
    """Serve the http block's content `http`: a master and one worker, everything it writes in `folder`."""
    path = binary()
    if path is None:
        raise RuntimeError("nginx is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        fill(
            _PREFACE.read_text(),
            # By default root's workers run as an unprivileged user, who may not read the bench's folder.
            USER="user root;" if os.geteuid() == 0 else "",
            MODULES="\n".join(f"load_module {modules() / name};" for name in load_modules),
            DIR=folder,
            HTTP=http,
        )
    )
    return Child([path, "-p", folder, "-c", configuration], core=core, log=folder / "output", env=_KEEP_MEMORY)
