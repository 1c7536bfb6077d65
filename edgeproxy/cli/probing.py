"""What `edgeproxy probe --through` does: rounds of the probe, once or for ever, and telling of them."""

import os
import signal
import sys
import time
from urllib.parse import urlsplit

import typer

from edgeproxy.cli.outcome import fail
from edgeproxy.config.addresses import AN_ADDRESS, split_address
from edgeproxy.config.units import read_duration
from edgeproxy.probe.fetch import fetcher
from edgeproxy.probe.round import Aim, steps
from edgeproxy.probe.steps import Step
from edgeproxy.probe.told import Told

KEY, TOKEN = "EDGEPROXY_PROBE_KEY", "EDGEPROXY_PROBE_TOKEN"
"""Variables of the environment with the secrets: a command line can be read by everybody on the machine."""


def aim(through: str, collector: str | None, within: str, ca: str | None, *, charge: bool, checkout: bool) -> Aim:
    """Return what these arguments ask to probe; exits where they cannot be used."""
    for name, url in (("--through", through), ("--collector", collector)):
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            fail(f"{name}: {url!r} is no URL of http:// or https://", 2)
    if collector is None and (charge or checkout):
        fail("--charge and --checkout go with --collector", 2)
    wanted = [KEY] if collector is None else [KEY, TOKEN]
    key, token = (os.environ.get(name, "").strip() for name in (KEY, TOKEN))
    for name, secret in zip(wanted, (key, token), strict=False):
        if not secret or not secret.isascii() or not secret.isprintable():
            fail(f"set {name} in the environment", 2)
    seconds = _seconds("--within", within)
    return Aim(through, key, collector and collector.rstrip("/"), token, seconds, ca, charge, checkout)


def run(aim: Aim, every: str | None, textfile: str | None, listen: str | None) -> None:
    """Make a round, or one `every` so often until somebody ends it; exits with 1 where the only one failed."""
    interval = None if every is None else _seconds("--every", every)
    told = Told(urlsplit(aim.url).netloc.rpartition("@")[2])
    try:
        fetch = fetcher(aim.ca)
    except OSError as error:
        fail(f"--ca: {aim.ca} cannot be used: {error.strerror or error}", 2)
    if listen is not None:
        if interval is None:
            fail("--listen goes with --every", 2)
        address = split_address(listen)
        if address is None:
            fail(f"--listen: {listen!r} is not an address with a port, {AN_ADDRESS}", 2)
        try:
            told.serve(address.host, address.port)
        except OSError as error:
            fail(f"--listen: {listen} cannot be used: {error.strerror or error}", 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # As process 1 of a container it would not end otherwise.
    due = time.monotonic()
    while True:
        made = tuple(steps(aim, fetch))
        told.tell(made, time.time())
        for step in made:
            typer.echo(_line(step), err=step.why is not None)
        if textfile is not None:
            try:
                told.write(textfile)
            except OSError as error:
                fail(f"--textfile: {textfile} cannot be written: {error.strerror or error}", 2)
        if interval is None:
            raise typer.Exit(1 if any(step.why for step in made) else 0)
        due = max(due + interval, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


def _line(step: Step) -> str:
    return f"{step.name:9}{f'FAILED: {step.why}' if step.why else f'ok, {step.seconds:.3f} s'}"


def _seconds(option: str, written: str) -> float:
    try:
        return read_duration(written)
    except ValueError as error:
        fail(f"{option}: {error}", 2)
