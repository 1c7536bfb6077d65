"""Configurations, one after another: the current one, the prepared one, and previous ones with unfinished requests.

A new one is prepared while requests are served, and takes over between two of them. A request ends under the
configuration that it began with. The resources of that configuration alone are freed after its last request.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING
from weakref import ref

from edgeproxy.base import log
from edgeproxy.config.directory import parse_flag
from edgeproxy.edge.counters.index import RowUnavailableError
from edgeproxy.edge.messages import Services
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.process import revocation
from edgeproxy.edge.proxy.routing.identity import FOREVER
from edgeproxy.edge.proxy.routing.token_verifier import parse_keys

if TYPE_CHECKING:
    from edgeproxy.base.client_tls import ClientTls
    from edgeproxy.edge.counters.store import Store
    from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.observation.access_log import AccessLog
    from edgeproxy.edge.proxy.routing.identity import Identity, TokenDigest
    from edgeproxy.edge.proxy.routing.identity_memory import IdentityMemory
    from edgeproxy.edge.proxy.upstreams.pool import Service

IDENTITIES_PER_TURN = 128
"""Identities that are freed at once, which takes a third of a millisecond; sixteen thousand would take fifty."""

LOST_LINES_LOG_SECONDS = 10.0
"""Seconds between two log lines about an access log that loses lines."""


class PreparedSnapshot:
    """A snapshot that may be served next."""

    def __init__(self, number: int, snapshot: Snapshot, endpoints: Services) -> None:
        self.number = number
        self.snapshot = snapshot
        self.endpoints = dict(endpoints)
        """The addresses of endpoints. They apply from the commit on: until then the current snapshot owns some of its
        services.
        """


class Generations:
    """The snapshots of one worker. `number` is the current configuration's."""

    def __init__(self, runtime: "Runtime", store: "Store", number: int = 1) -> None:
        self._runtime, self._store = runtime, store
        self.number = number
        self.endpoints_known = asyncio.Event()
        """Set once the supervisor has sent the endpoints of the current configuration."""
        self._prepared: PreparedSnapshot | None = None
        self._previous: list[ref[Snapshot]] = []
        """The previous snapshots, oldest first. Each exists as long as one of its requests."""
        self._services: list[Service] = []
        self._logs: list[AccessLog] = []
        """The services and access logs of previous snapshots that the current one does not have."""
        self._orphaned = False
        self._challenges: dict[str, str] = {}
        """The content for each pending token of ACME."""
        self._log = log.RateLimitedLog(LOST_LINES_LOG_SECONDS)

    # ---- the next one

    def prepare(self, number: int, draft: "PreparedConfiguration", endpoints: Services) -> None:
        """Prepare to serve this configuration, in place of another prepared one.

        Raises RowUnavailableError or RejectedError if it cannot be served.
        """
        self.discard()
        runtime = self._runtime
        before, key_lookup = runtime.snapshot, runtime.key_lookup
        snapshot = Snapshot(draft, self._store, runtime.metrics, before=before, key_lookup=key_lookup)
        self._prepared = PreparedSnapshot(number, snapshot, endpoints)

    def are_tables_free(self) -> bool:
        """Return whether no other process holds the flock of a table now."""
        store = self._store
        for file in (*[table.file for table in store.limits.values()], store.usage.file, store.metrics.file):
            if not file.lock():
                return False
            file.unlock()
        return True

    def discard(self, number: int | None = None) -> None:
        """Discard the prepared snapshot; if a number is given, only the one of that number."""
        prepared = self._prepared
        if prepared is not None and number in (None, prepared.number):
            self._prepared = None
            self._retire(prepared.snapshot)

    def commit(self, number: int) -> bool:
        """Serve the prepared configuration from the next request on. Return False if it was not prepared."""
        prepared, runtime = self._prepared, self._runtime
        if prepared is None or prepared.number != number:
            return False
        before, now = runtime.snapshot, prepared.snapshot
        # First, because parts of the rest look up the serving snapshot, for example `_retire`.
        runtime.serve_snapshot(now)
        self.number, self._prepared = number, None
        now.update_endpoints(prepared.endpoints)
        if self._challenges:
            self.update_challenges(self._challenges)
        if self._orphaned:
            self.on_supervisor_lost()
        # A weak reference: only requests keep a snapshot alive.
        self._previous.append(ref(before))
        self._retire(before)
        if now.access_log is not None:
            now.access_log.clear_caches()
        if now.tracer is not None:
            now.tracer.clear_caches()
        # Addresses are kept if their settings are the same. They still have limits of the old routes.
        if now.addresses is before.addresses:
            now.addresses.forget_bindings()
        else:
            runtime.connections.update_configuration()
        runtime.overload.change_bounds(now.overload)
        # The new files may lack the key or the user of an open request.
        revocation.recheck_files(runtime)
        return True

    def forget_customers(self, customers: Collection[str] | None, generation: int = 0) -> None:
        """Forget the directory's records of these customers; None: of all."""
        self._runtime.key_lookup.forget_customers(customers, generation)
        self._runtime.snapshot.forget_customers(customers)

    def update_issuer_keys(self, keys: dict[str, str]) -> None:
        """Take over the public keys of issuers, a JWK Set each. Tokens verified by other keys are verified again."""
        known = self._runtime.key_lookup.issuer_keys
        known.clear()
        for name, jwks in keys.items():
            try:
                known[name] = parse_keys(jwks)
            except ValueError as error:
                self._log.error("the keys of an issuer cannot be read", name, why=str(error))
        self._runtime.snapshot.forget_customers(None)

    def update_directory_validity(self, until: float | None, residency: str = "") -> None:
        """Set the edge time until which the directory of a residency is valid; None: for ever."""
        validity = self._runtime.key_lookup.validity
        if validity.update(residency, FOREVER if until is None else until):
            self._runtime.snapshot.forget_customers(None)

    def update_flags(self, flags: Mapping[str, str], residency: str = "") -> None:
        """Take over the flags of a residency's directory, in JSON by name. Each customer's flags are settled again."""
        known = self._runtime.key_lookup.flags.setdefault(residency, {})
        known.clear()
        for name, document in flags.items():
            try:
                known[name] = parse_flag(document)
            except ValueError as error:
                self._log.error("a flag of the directory is not understood: nobody has it", name, why=str(error))
        self._runtime.snapshot.refresh_flags()
        if self._prepared is not None:
            self._prepared.snapshot.refresh_flags()

    def update_challenges(self, tokens: dict[str, str]) -> str:
        """Answer these tokens of ACME with their content, and no others. Return the reason of a failure, or ""."""
        self._challenges = tokens
        why = ""
        try:
            self._runtime.snapshot.update_challenges(tokens)
        except RowUnavailableError as error:
            why = f"the table of {error} has no room"
        except ValueError as error:  # Each commit calls this, and may not end half done.
            why = str(error)
        if why:
            self._log.error("challenges of ACME get no answer", "acme", why=why)
        return why

    def update_endpoints(self, number: int, endpoints: Services) -> bool:
        """Take over the endpoints of the current or the prepared configuration.

        Return whether it is the current one.
        """
        prepared, serving = self._prepared, self._runtime.snapshot
        if number == self.number:
            serving.update_endpoints(endpoints)
            if self._orphaned:
                self.on_supervisor_lost()
            if prepared is not None:
                services = prepared.snapshot.services
                prepared.endpoints |= {
                    name: addresses
                    for name, addresses in endpoints.items()
                    # Only services that both snapshots share: the others of the prepared one may have the same name and
                    # other addresses.
                    if name in services and services[name] is serving.services.get(name)
                }
            self.endpoints_known.set()
            return True
        if prepared is not None and number == prepared.number:
            prepared.endpoints = dict(endpoints)
        return False

    def on_supervisor_lost(self) -> None:
        """Let no endpoint stay out for ever: the supervisor is gone, and its last report becomes old."""
        self._orphaned = True
        now = monotonic()
        for service in self.list_services():
            service.on_supervisor_lost(now)

    # ---- previous ones

    def sweep(self) -> None:
        """Write the logs of previous snapshots, and free everything that they no longer need; twice a second."""
        if not (self._previous or self._services or self._logs):
            return
        self._previous = [each for each in self._previous if each() is not None]
        needed = list(self._list_snapshots())
        self._logs = [log for log in self._logs if not self._is_written(log, needed)]
        over = [
            service
            for service in self._services
            if not any(snapshot.services.get(service.name) is service for snapshot in needed)
        ]
        for service in over:
            self._services.remove(service)
            service.dissolve()

    def _is_written(self, access: "AccessLog", needed: Sequence[Snapshot]) -> bool:
        """Write the remaining lines. Return whether these were the last."""
        if any(snapshot.access_log is access for snapshot in needed):
            access.flush()
            over = False
        else:
            access.finish()
            over = access.is_finished
        self.report_lost_lines(access)
        return over

    def list_access_logs(self) -> list["AccessLog"]:
        """Return all open access logs, the current snapshot's first."""
        access = self._runtime.snapshot.access_log
        return self._logs if access is None else [access, *self._logs]

    def list_services(self) -> list["Service"]:
        """Return all services that may have active requests."""
        return [*self._runtime.snapshot.services.values(), *self._services]

    def count_requests(self) -> int:
        """Count the active requests in this worker. A tunnel no longer counts as a request."""
        outstanding = sum(endpoint.outstanding for service in self.list_services() for endpoint in service.endpoints)
        return outstanding - self._runtime.connections.tunnels

    def report_lost_lines(self, access: "AccessLog") -> None:
        """Count and log the lines of an access log that could not be written."""
        lost, why = access.take_lost_lines()
        if lost:
            self._runtime.metrics.count_dropped_lines(lost)
            self._log.error("access log lines dropped", str(access.file), lines=lost, why=why)

    def list_upstream_tls(self) -> list["ClientTls"]:
        """Return the TLS settings towards all upstreams that may still get requests."""
        contexts = {id(each): each for snapshot in self._list_snapshots() for each in snapshot.upstream_tls.values()}
        return list(contexts.values())

    def _list_snapshots(self) -> Iterator[Snapshot]:
        yield self._runtime.snapshot
        if self._prepared is not None:
            yield self._prepared.snapshot
        for each in self._previous:
            snapshot = each()
            if snapshot is not None:
                yield snapshot

    def _retire(self, snapshot: Snapshot) -> None:
        """Free what only this snapshot uses: no request begins with it any more."""
        serving = self._runtime.snapshot
        known = snapshot.retire()
        if known:
            self._runtime.tasks.start("let go of keys", _free_identities(known))
        for name, service in snapshot.services.items():
            if serving.services.get(name) is not service:
                self._services.append(service)
                for server in service.retire():
                    # Idle connections only: active requests end on theirs.
                    server.close()
        if snapshot.access_log is not None and snapshot.access_log is not serving.access_log:
            self._logs.append(snapshot.access_log)


async def _free_identities(known: "IdentityMemory[bytes | TokenDigest, Identity]") -> None:
    while known:
        # In slices, as a million keys at once would delay all requests.
        for _ in range(min(IDENTITIES_PER_TURN, len(known))):
            known.popitem()
        await asyncio.sleep(0)
