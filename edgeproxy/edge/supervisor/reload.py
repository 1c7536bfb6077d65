"""Reloads: the files are read again, and their settings replace the serving ones wholly or not at all.

`plan_reload` decides which settings can change; `Reloads` loads and applies one configuration after another. Its counts
and problems are in the supervisor's memory, and begin at zero with each supervisor.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.base import log
from edgeproxy.base.allocator import return_freed_memory
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.config.load import Loaded
from edgeproxy.config.part import FieldMark
from edgeproxy.edge.metrics import Series

Result = Literal["ok", "unchanged", "refused", "failed"]

RESULTS: dict[Result, str] = {
    "ok": "configuration reloaded",
    "unchanged": "configuration is what serves already",
    "refused": "configuration refused; the one before serves on",
    "failed": "configuration could not be put to use; the one before serves on",
}
"""The results of a reload, and the log line of each."""

NEED_RESTART = EdgeFile.list_marked(FieldMark.RESTART)
"""Settings that keep their initial values, whatever is loaded later."""

NO_FILE = "this edge was started without a file, by `edgeproxy quick`: there is nothing to reload"


class ReloadOutcome(NamedTuple):
    """The outcome of a reload."""

    result: Result
    errors: tuple[str, ...] = ()
    """All errors, if the reload was refused or failed."""
    needs_restart: tuple[str, ...] = ()
    """Changed settings of the file that wait for a restart."""

    @property
    def succeeded(self) -> bool:
        """True if the edge serves the files."""
        return not self.errors


class ReloadProblem(NamedTuple):
    """The reason why the edge does not serve the files."""

    since: float
    """Unix second of the first failed reload."""
    at: float
    """Unix second of the last failed reload."""
    result: Result
    errors: tuple[str, ...]


class ReloadPlan(NamedTuple):
    """The settings to serve, and the changed settings of the file that wait for a restart."""

    settings: EdgeSettings
    needs_restart: tuple[str, ...]


def plan_reload(serving: EdgeSettings, loaded: EdgeSettings) -> ReloadPlan:
    """Return `loaded` with the settings that need a restart taken from `serving`."""
    waits = tuple(field for field in NEED_RESTART if getattr(loaded, field) != getattr(serving, field))
    if loaded.admin.address == serving.admin.address:
        waits = tuple(field for field in waits if field != "admin")  # Tokens and names are looked up at each request.
    if loaded.hub.is_shared != serving.hub.is_shared:
        # The tables have another layout then.
        waits = (*waits, "hub")
        if loaded.directory != serving.directory:
            waits = (*waits, "directory")
    return ReloadPlan(loaded.model_copy(update={field: getattr(serving, field) for field in waits}), waits)


def next_problem(before: ReloadProblem | None, outcome: ReloadOutcome, now: float) -> ReloadProblem | None:
    """Return the problem after a reload with this outcome at `now`.

    It lasts from the first failure to the next success.
    """
    if outcome.succeeded:
        return None
    return ReloadProblem(now if before is None else before.since, now, outcome.result, outcome.errors)


async def follow_each(parts: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
    """Let each part take over the configuration that workers serve already.

    A failure is logged with the name of its part, and the others go on: there is no way back from a commit.
    """
    logger = log.get_logger()
    for name, follow in parts.items():
        try:
            await follow()
        except Exception as error:
            logger.error("a part could not follow the new configuration", part=name, exc_info=error)


class Reloads:
    """The reloads of one supervisor, and the serving configuration.

    `read` loads the files in a thread; None without files. `apply` makes all workers serve a configuration, and returns
    the reasons if it fails. `on_reload` is called with True when a reload begins, and with False at its end.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        read: Callable[[], Loaded[EdgeSettings]] | None,
        apply: Callable[[EdgeSettings], Awaitable[Sequence[str]]],
        *,
        on_reload: Callable[[bool], None] = lambda _: None,
        signatures: Mapping[str, FileSignature] | None = None,
    ) -> None:
        self.serving = settings
        """The serving configuration."""
        self.loaded_at = time.time()
        """Unix second of its loading."""
        self.needs_restart: tuple[str, ...] = ()
        """Changed settings of its files that wait for a restart."""
        self.problem: ReloadProblem | None = None
        """The reason why the present files do not serve; None if they do."""
        self.signatures = dict(signatures or {})
        """Signatures of the files at the last reading."""
        self._read = read
        self._apply = apply
        self._on_reload = on_reload
        self._counts = dict.fromkeys(RESULTS, 0)
        self._requested = asyncio.Event()
        self._next: asyncio.Future[ReloadOutcome] | None = None
        self._log = log.get_logger()

    def request(self) -> asyncio.Future[ReloadOutcome]:
        """Request a reload that begins after this call, and return its outcome.

        Callers that ask while a reload runs share the next one.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._requested.set()
        return self._next

    async def run(self) -> None:
        """Reload on request, until `end` or cancellation."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            pending = self._next
            if pending is None or pending.done():
                return
            self._next = None
            try:
                began = time.monotonic()
                self._on_reload(True)
                outcome = await self._reload()
                self._record(outcome, time.monotonic() - began)
                pending.set_result(outcome)
                self._on_reload(False)
                return_freed_memory()
            finally:
                if not pending.done():
                    pending.set_result(ReloadOutcome("failed", ("the edge has ended meanwhile",)))

    def end(self) -> None:
        """Reload no more. Callers that wait or ask later get the outcome `failed`."""
        self.request().set_result(ReloadOutcome("failed", ("the edge is draining",)))

    async def _reload(self) -> ReloadOutcome:
        try:
            return await self._attempt()
        except Exception as error:  # The next reload may succeed.
            self._log.error("reload died", exc_info=error)
            return ReloadOutcome("failed", (f"the supervisor failed: {error!r}",))

    async def _attempt(self) -> ReloadOutcome:
        if self._read is None:
            return ReloadOutcome("refused", (NO_FILE,))
        # The files may be on a file system that does not answer; that must not keep the edge from ending.
        loaded = await run_in_thread("load configuration", self._read)
        self.signatures = loaded.signs
        if loaded.settings is None:
            return ReloadOutcome("refused", tuple(map(str, loaded.problems)))
        settings, needs_restart = plan_reload(self.serving, loaded.settings)
        if await run_in_thread("compare the configuration", lambda: settings == self.serving):
            return ReloadOutcome("unchanged", (), needs_restart)
        loaded_at = time.time()
        whys = await self._apply(settings)
        if whys:
            return ReloadOutcome("failed", tuple(whys), needs_restart)
        self.serving, self.loaded_at, self.needs_restart = settings, loaded_at, needs_restart
        return ReloadOutcome("ok", (), needs_restart)

    def _record(self, outcome: ReloadOutcome, seconds: float) -> None:
        """Count and log an outcome."""
        self._counts[outcome.result] += 1
        if self._read is not None:
            self.problem = next_problem(self.problem, outcome, time.time())
        if outcome.succeeded:
            facts = {"sha256": self.serving.sha256, "needs_restart": outcome.needs_restart}
            self._log.info(RESULTS[outcome.result], **facts, seconds=round(seconds, 3))
        else:
            self._log.error(RESULTS[outcome.result], sha256=self.serving.sha256, errors=outcome.errors)

    # ---- status

    def report(self) -> JsonObject:
        """Return the field `config` of `GET /status`."""
        return {
            "sha256": self.serving.sha256,
            "loaded_at": self.loaded_at,
            "needs_restart": self.needs_restart,
            "error": None if self.problem is None else self.problem._asdict(),
        }

    def series(self) -> list[Series]:
        """Return the metrics of reloads. Counters begin at zero with each supervisor."""
        counted: list[Series] = [
            ("edge_config_reloads_total", (result,), (count,)) for result, count in self._counts.items()
        ]
        return [*counted, ("edge_config_ok", (), (int(self.problem is None),))]
