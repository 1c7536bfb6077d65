"""Certificates by ACME: the supervisor that holds the identity lock requests and renews them, one after another.

The library runs in a process of its own (acme_order.py), so the loop never waits for an authority. That process writes
the certificate to its file in the state directory; the watch of certificate files does the rest. Until the first
certificate has been issued, the file has one that the edge signed itself.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

import orjson
from msgspec import convert, json

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks, run_in_thread
from edgeproxy.config.edge.listeners import ACME_FOLDER, Acme
from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.edge.counters.file import TableError, write_whole
from edgeproxy.edge.messages import AcmeChallenges
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.environment import inherit

COMMAND = (sys.executable, "-P", "-m", "edgeproxy.edge.supervisor.acme_order")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
ORDER_SECONDS = 600.0
"""Seconds until the process of an order is killed."""
SERVED_SECONDS = 60.0
"""Seconds until all workers must answer a challenge, because the authority may reach any of them. A worker that hangs
is replaced sooner; one that prepares a large configuration takes the challenge afterwards.
"""
CHECK_SECONDS = 6 * 3600.0
"""Seconds between two checks whether a renewal is due, plus or minus a tenth; also the longest wait after a failure.
The check is repeated because the authority may move the renewal forward (RFC 9773), and clocks may jump.
"""
FIRST_RETRY_SECONDS = 180.0
"""Seconds until the first retry; each further wait is twice as long. Let's Encrypt allows five failures in an hour."""
RETRY_AFTER_SECONDS_MAX = 86400.0
"""Maximum seconds that an authority's `Retry-After` delays the next attempt."""
LOCK_SECONDS = 1.0
"""Seconds between two attempts to acquire the identity lock."""
LINE_BYTES_MAX = 1 << 20
ORDER_FAILED = "a certificate could not be requested or renewed; the present one stays"


class AcmeRenewals:
    """The certificates by ACME of one supervisor.

    `serving` returns the configuration; `may_order` whether this supervisor holds the identity lock. `publish` sends to
    all workers, now and at their start. `wait_until_served` waits until all of them answer the challenges with a
    number, for at most some seconds, and returns why any of them cannot.
    """

    def __init__(
        self,
        settings: EdgeFile,
        serving: Callable[[], EdgeFile],
        may_order: Callable[[], bool],
        publish: Callable[[AcmeChallenges], None],
        wait_until_served: Callable[[int, float], Awaitable[Sequence[str]]],
    ) -> None:
        self._state = settings.state
        self._serving, self._may_order = serving, may_order
        self._publish, self._wait_until_served = publish, wait_until_served
        self._challenges = 0
        """The number of the challenges that were published last."""
        named = [each.tls.acme for each in settings.listen if each.tls is not None and each.tls.acme is not None]
        self._named = {acme.get_file(self._state): acme for acme in named}
        self._kinds = list_kinds(settings)
        self._failures = dict.fromkeys(self._named, 0)
        self._turn = asyncio.Lock()
        """One order runs at a time."""
        self._tasks = Tasks()
        self._log = log.get_logger()

    async def begin(self) -> None:
        """Create the files that are missing, replace expired ones of the edge's own, and renew from now on.

        Raises OSError.
        """
        if not self._named:
            return
        await run_in_thread("self-signed certificates", self._create_missing)
        for file, acme in self._named.items():
            self._tasks.start(f"certificate of {acme.domains[0]}", self._renew(file, acme))

    async def end(self) -> None:
        """End the process of an order."""
        await self._tasks.cancel()

    def series(self) -> list[Series]:
        """Return the failures in a row of each certificate."""
        return [("edge_acme_failures", (str(file),), (count,)) for file, count in self._failures.items()]

    def _create_missing(self) -> None:
        # Imported here, because only edges with ACME need it.
        from edgeproxy.edge.supervisor.self_signed import create_self_signed, is_expired

        (self._state / ACME_FOLDER).mkdir(mode=0o700, exist_ok=True)
        for file, acme in self._named.items():
            if not file.exists() or is_expired(file.read_bytes()):
                write_whole(file, create_self_signed(acme.domains))

    async def _renew(self, file: Path, acme: Acme) -> None:
        """Request and renew one certificate for ever."""
        retry = file.with_suffix(".retry")
        self._failures[file], wait = await run_in_thread("read", lambda: _read_retry(retry, time.time()))
        while True:
            await asyncio.sleep(wait)
            if not self._may_order():
                # A failure of the supervisor that holds the lock delays this one too, when it takes over.
                self._failures[file], wait = await run_in_thread("read", lambda: _read_retry(retry, time.time()))
                wait = max(wait, LOCK_SECONDS)
                continue
            try:
                async with self._turn:
                    outcome = await self._run(file, acme)
                due = float(outcome["renew_at"]) if outcome.get("renew_at") is not None else None  # type: ignore[arg-type]
            except Exception as error:  # Whatever it is, the next attempt must come.
                outcome, due = {"why": repr(error)}, None
            if due is None:
                self._failures[file] += 1
                wait = compute_wait(self._failures[file], outcome.get("retry_after"), random.uniform(0.8, 1.2))
                facts = {"file": str(file), "why": outcome.get("why"), "retry_in": round(wait)}
                self._log.error(ORDER_FAILED, domains=acme.domains, **facts)
            else:
                self._failures[file] = 0
                wait = max(1.0, min(due - time.time(), CHECK_SECONDS * random.uniform(0.9, 1.1)))
            write = partial(_write_retry, retry, self._failures[file], time.time() + wait)
            with suppress(RuntimeError):  # There may be no thread left.
                await run_in_thread("write", write)

    async def _run(self, file: Path, acme: Acme) -> JsonObject:
        """Run the process of an order, and return its last line."""
        settings, proxy = self._serving(), self._serving().proxy
        account = sha256(f"{acme.directory}\n{acme.email}".encode()).hexdigest()[:12]
        turns = self._failures[file] % len(self._kinds)
        order = {
            "file": str(file),
            "account": str(file.parent / f"account-{account}.pem"),
            "domains": acme.domains,
            "email": acme.email,
            "directory": acme.directory,
            # The listener at one of the two ports may be out of reach from the internet.
            "kinds": self._kinds[turns:] + self._kinds[:turns],
            "trust": [str(trusted) for trusted in settings.trust.files],
            "proxy": None if proxy is None else (proxy.url, proxy.past),
        }
        proxies = {name: value for name, value in os.environ.items() if name.lower() in PROXY_VARIABLES}
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=inherit(os.environ) | proxies,
                limit=LINE_BYTES_MAX,
            )
            async with asyncio.timeout(ORDER_SECONDS):
                return await self._converse(process, json.encode(order) + b"\n")
        except TimeoutError:
            return {"why": f"it took more than {ORDER_SECONDS:.0f} s"}
        except (OSError, ValueError) as error:
            return {"why": str(error)}
        finally:
            self._publish_challenges({"tokens": {}, "certificates": {}})
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _converse(self, process: asyncio.subprocess.Process, order: bytes) -> JsonObject:
        """Write the order, have challenges answered, and return the last line."""
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdin.is_closing():  # It is closing if the process has ended. A write would raise then.
            process.stdin.write(order)
        while line := await process.stdout.readline():
            message: JsonObject = orjson.loads(line)
            if "tokens" not in message:
                return message
            number = self._publish_challenges(message)
            if whys := await self._wait_until_served(number, SERVED_SECONDS):
                return {"why": f"not all workers answer the challenge: {'; '.join(whys)}"}
            if not process.stdin.is_closing():
                process.stdin.write(b"\n")
        return {"why": f"its process ended with code {await process.wait()}"}

    def _publish_challenges(self, challenges: JsonObject) -> int:
        """Have all workers answer these challenges and no others. Return their number. Raises ValueError."""
        self._challenges += 1
        self._publish(convert(challenges | {"number": self._challenges}, AcmeChallenges))
        return self._challenges


def list_kinds(settings: EdgeFile) -> list[str]:
    """List the challenges that listeners can answer, the preferred one first."""
    answering = [each for each in settings.listen if each.authorize is None]
    kinds = ["http-01"] if any(each.tls is None for each in answering) else []
    return [*kinds, "tls-alpn-01"] if any(each.tls is not None for each in answering) else kinds


def compute_wait(failures: int, retry_after: object, jitter: float) -> float:
    """Return the seconds until the attempt after this many failures in a row.

    `retry_after`: the seconds that the authority asked to wait, if it did. `jitter`: a factor about 1.
    """
    wait: float = min(CHECK_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 16)) * jitter
    return max(wait, min(float(retry_after), RETRY_AFTER_SECONDS_MAX)) if isinstance(retry_after, int | float) else wait


def _read_retry(file: Path, now: float) -> tuple[int, float]:
    """Return the failures in a row before this start, and the seconds until the next attempt.

    So a supervisor that restarts again and again does not use up the limits of the authority.
    """
    try:
        failures, until = orjson.loads(file.read_bytes())
        return int(failures), min(max(0.0, float(until) - now), RETRY_AFTER_SECONDS_MAX)
    except (OSError, ValueError, TypeError):
        return 0, 0.0


def _write_retry(file: Path, failures: int, until: float) -> None:
    """Store the failures in a row and the Unix time of the next attempt; remove them after a success."""
    with suppress(TableError, OSError):
        if failures:
            write_whole(file, orjson.dumps([failures, until]))
        else:
            file.unlink(missing_ok=True)
