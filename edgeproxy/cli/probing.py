"""Rounds of the probe for `edgeproxy probe --through`, once or again and again, and their report."""

import signal
import sys
import time
from urllib.parse import urlsplit

import typer

from edgeproxy.cli.api import read_token
from edgeproxy.cli.outcome import fail
from edgeproxy.config.addresses import AN_ADDRESS, split_address
from edgeproxy.config.units import read_duration
from edgeproxy.probe.fetch import create_fetch
from edgeproxy.probe.metrics import ProbeMetrics
from edgeproxy.probe.round import ProbeTarget, run_round
from edgeproxy.probe.steps import Step

KEY, TOKEN = "EDGEPROXY_PROBE_KEY", "EDGEPROXY_PROBE_TOKEN"
"""Environment variables with the secrets. Every user of the machine can read a command line."""


def parse_target(
    through: str, collector: str | None, within: str, ca: str | None, *, charge: bool, checkout: bool
) -> ProbeTarget:
    """Return the target of these arguments. Exit if they are invalid."""
    for name, url in (("--through", through), ("--collector", collector)):
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            fail(f"{name}: {url!r} is no URL of http:// or https://", 2)
    if collector is None and (charge or checkout):
        fail("--charge and --checkout go with --collector", 2)
    variables = [KEY] if collector is None else [KEY, TOKEN]
    key, token = map(read_token, (KEY, TOKEN))
    for name, secret in zip(variables, (key, token), strict=False):
        if not secret:
            fail(f"set {name} in the environment", 2)
    seconds = _parse_seconds("--within", within)
    return ProbeTarget(through, key, collector and collector.rstrip("/"), token, seconds, ca, charge, checkout)


def run(target: ProbeTarget, every: str | None, textfile: str | None, listen: str | None) -> None:
    """Run one round, and exit with 1 if it failed. With `every`, run rounds until the process ends."""
    interval = None if every is None else _parse_seconds("--every", every)
    metrics = ProbeMetrics(urlsplit(target.url).netloc.rpartition("@")[2])
    try:
        fetch = create_fetch(target.ca)
    except OSError as error:
        fail(f"--ca: {target.ca} cannot be used: {error.strerror or error}", 2)
    if listen is not None:
        if interval is None:
            fail("--listen goes with --every", 2)
        address = split_address(listen)
        if address is None:
            fail(f"--listen: {listen!r} is not an address with a port, {AN_ADDRESS}", 2)
        try:
            metrics.serve(address.host, address.port)
        except OSError as error:
            fail(f"--listen: {listen} cannot be used: {error.strerror or error}", 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # As process 1 of a container it would not end otherwise.
    due = time.monotonic()
    while True:
        steps = tuple(run_round(target, fetch))
        metrics.record_round(steps, time.time())
        for step in steps:
            typer.echo(_format_step(step), err=step.why is not None)
        if textfile is not None:
            try:
                metrics.write(textfile)
            except OSError as error:
                fail(f"--textfile: {textfile} cannot be written: {error.strerror or error}", 2)
        if interval is None:
            raise typer.Exit(1 if any(step.why for step in steps) else 0)
        due = max(due + interval, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


def _format_step(step: Step) -> str:
    return f"{step.name:9}{f'FAILED: {step.why}' if step.why else f'ok, {step.seconds:.3f} s'}"


def _parse_seconds(option: str, written: str) -> float:
    try:
        return read_duration(written)
    except ValueError as error:
        fail(f"{option}: {error}", 2)
