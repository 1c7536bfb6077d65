"""The environment of an edge's processes.

Workers inherit a part of it, without the secrets of ${VAR}. A supervisor whose workers are forked executes itself with
that part, and takes the rest out of a file in memory once their template is there.
"""

import os
import signal
import sys
from collections.abc import Mapping

ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": 16 << 20, "MALLOC_MMAP_THRESHOLD_": 4 << 20}
"""Settings of glibc's allocator in a worker, in bytes, unless the environment has its own. Without them it returns the
memory of each larger piece of a body to the kernel, and asks for it again with the next.
"""

ENVIRONMENT = (
    *("PATH", "HOME", "USER", "TZ", "TZDIR", "TMPDIR", "LANG", "LANGUAGE", "VIRTUAL_ENV", "GLIBC_TUNABLES"),
    "EDGEPROXY_PURE",
)
ENVIRONMENT_PREFIXES = (
    "LC_",
    "LD_",
    "MALLOC_",
    "PYTHON",
    "SSL_CERT_",
    "OPENSSL_",
    "UV_",
    "FAKETIME",
    "EDGEPROXY_TEST_",
)
"""Variables that a worker inherits, by name and by prefix. Secrets for ${VAR} are not among them: a worker receives the
parsed configuration, and serves everybody.
"""

SWITCH = "EDGEPROXY_TEMPLATE"
"""Variable that is `0` where each worker shall be started by exec: for tools that look at a process from its beginning.
"""

HANDED_OVER = "EDGEPROXY_ENVIRONMENT_FD"
"""Variable of a process that has begun anew: the descriptor of the rest of its environment."""


def inherit(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that a worker inherits."""
    return {
        name: value for name, value in environ.items() if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker that is started by exec, a selection of the supervisor's."""
    return {name: str(size) for name, size in ALLOCATION.items()} | inherit(environ)


def reexecute() -> None:
    """Execute this process's command once more, with nothing of its environment but what workers inherit.

    What an environment held when a process began stays in its memory, and in that of all that it forks. Returns in the
    process that has begun so, and where that cannot be, or is not wanted: see is_reexecuted.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or not sys.executable or is_reexecuted():
        return
    # Until the supervisor handles it, also in the process that this one becomes.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    inherited = inherit(os.environ)
    rest = b"\0".join(os.fsencode(f"{name}={value}") for name, value in os.environ.items() if name not in inherited)
    try:
        file = os.memfd_create("environment", 0)  # Not closed on exec.
        with os.fdopen(file, "wb", closefd=False) as target:
            target.write(rest)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], inherited | {HANDED_OVER: str(file)})
    except OSError as error:
        print(f"edgeproxy: workers are started by exec, and take more memory: {error}", file=sys.stderr)


def is_reexecuted() -> bool:
    """Return whether this process began without the rest of its environment, which `restore` has."""
    return HANDED_OVER in os.environ


def restore() -> None:
    """Set the variables that were handed over."""
    with os.fdopen(int(os.environ.pop(HANDED_OVER)), "rb") as handed_over:
        handed_over.seek(0)
        for variable in filter(None, handed_over.read().split(b"\0")):
            name, _, value = variable.partition(b"=")
            os.environb[name] = value
