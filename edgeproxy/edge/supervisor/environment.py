"""The environment of an edge's processes.

Workers inherit a part of it, without the secrets of ${VAR}. A supervisor with forked workers executes itself with that
part, and reads the rest from a file in memory once the template of its workers exists.
"""

import os
import signal
import sys
from collections.abc import Mapping

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
parsed configuration, and is exposed to all clients.
"""

SWITCH = "EDGEPROXY_TEMPLATE"
"""If this variable is `0`, each worker is started by exec: for tools that observe a process from its beginning."""

HANDED_OVER = "EDGEPROXY_ENVIRONMENT_FD"
"""Variable of a re-executed process: the descriptor of the rest of its environment."""


def inherit(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that a worker inherits."""
    return {
        name: value for name, value in environ.items() if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }


def reexecute() -> None:
    """Execute this process's command once more, with only the inherited variables in its environment.

    The initial environment of a process stays in its memory, and in the memory of all its forks. Returns in the
    re-executed process, and also if a re-execution is impossible or switched off: see is_reexecuted.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0" or not sys.executable or is_reexecuted():
        return
    # Blocked until the supervisor handles it, also in the new process.
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
