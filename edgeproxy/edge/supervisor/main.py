"""The process of a supervisor: its checks before anything starts, its event loop, its exit code."""

import platform
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgeproxy.base import event_loop, log
from edgeproxy.base.allocator import CONFIGURATION_ALLOCATION, return_freed_memory, tune_allocation
from edgeproxy.base.core_dumps import forbid_core_dumps
from edgeproxy.base.descriptor_limit import raise_descriptor_limit
from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.edge.counters.memory_order import MACHINES
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.supervisor import sockets, state
from edgeproxy.edge.supervisor.admin import Admin
from edgeproxy.edge.supervisor.process import WORKER_COMMAND
from edgeproxy.edge.supervisor.supervisor import STOP_SIGNALS, Supervisor
from edgeproxy.edge.supervisor.worker_template import WorkerTemplate
from edgeproxy.edge.supervisor.workers import WorkersFailedError


def run(
    take_settings: Callable[[], EdgeSettings],
    config_path: Path | None,
    *,
    command: Sequence[str] = WORKER_COMMAND,
    watched: Mapping[str, FileSignature] | None = None,
    template: WorkerTemplate | None = None,
) -> int:
    """Run the supervisor until it is told to stop, and return the exit code of the process.

    The code is 0 after a drain; 1 if no worker could start; 2, with nothing started, if an address or the state
    directory cannot be used. `take_settings` hands over the first settings, so that no caller holds them after a
    reload. `config_path` is the file of the settings, or None without a file. `command` starts a worker if no
    `template` forks it. `watched` are the files that were read; they are loaded again when they change.
    """
    log.configure("supervisor")
    tune_allocation(CONFIGURATION_ALLOCATION)
    settings = take_settings()
    if not _is_known_machine():
        return 2
    raise_descriptor_limit()
    forbid_core_dumps()
    with ExitStack() as owned:
        if template is not None:
            owned.callback(template.close)
        try:
            taken = [address for address in list_addresses(settings) if sockets.is_listened_on(address)]
            listening = sockets.bind_all(listener.address for listener in settings.listen)
            owned.callback(sockets.close_all, listening)
            admin = Admin(settings)
            store = state.prepare_store(settings)
            owned.callback(store.close)
            state.refuse_log(settings)
            if taken and not state.is_in_use(store):
                # SO_REUSEPORT allowed the bind, but the processes would share clients without sharing counts.
                why = f"another process does, which is no edge on the state directory {settings.state}"
                raise sockets.AddressUnavailableError(f"cannot listen on {taken[0]}: {why}")
        except (sockets.AddressUnavailableError, state.StateDirectoryError) as error:
            print_error(str(error))
            return 2
        code = 0
        serving = _serve(settings, store, listening, admin, config_path, command, watched, template)
        del settings
        try:
            event_loop.run(serving)
        except WorkersFailedError as error:
            print_error(f"no worker could start: {error}")
            code = 1
        # A second signal while the process ends must not change how it ends.
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return code


def _is_known_machine() -> bool:
    """Return whether the edge's order of stores works on this machine type. Print an error if that is unknown."""
    if platform.machine() in MACHINES:
        return True
    known = " and ".join(MACHINES[::2])
    print_error(f"this machine is {platform.machine()}; the order of stores in the tables is known for {known}")
    return False


async def _serve(
    settings: EdgeSettings,
    store: Store,
    listening: Sequence[socket.socket],
    admin: Admin,
    config_path: Path | None,
    command: Sequence[str],
    watched: Mapping[str, FileSignature] | None,
    template: WorkerTemplate | None,
) -> None:
    # A separate coroutine, because the parts of a supervisor need a running loop.
    supervisor = Supervisor(settings, store, listening, admin, config_path, command, watched, template)
    del settings
    return_freed_memory()
    await supervisor.serve()


def list_addresses(settings: EdgeSettings) -> tuple[Address, ...]:
    """List the addresses that a configuration listens on."""
    listening = tuple(listener.address for listener in settings.listen)
    address = settings.admin.address
    return listening if address is None else (*listening, address)


def print_error(why: str) -> None:
    """Print to standard error why the edge does not run."""
    print(f"edgeproxy: {why}", file=sys.stderr)
