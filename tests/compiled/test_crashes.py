"""No call of a compiled class ends the process: any misuse of its objects raises an exception at worst.

Forked children call methods and set attributes on instances without `__init__`, with odd arguments.
"""

import importlib
import os
import random
import resource
import signal
from collections import Counter
from typing import Any

import pytest

from tests.compiled.test_modules import module_names

pytestmark = pytest.mark.compiled

ROUNDS, CALLS = 60, 400

HEAP_TYPE = 1 << 9
"""The flag of types created by Python code, in CPython. Types written in C lack it."""

ODD = (
    *(None, b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, 1, -1, 1 << 70, 2.5, float("nan"), "", (), [], {}),
    *((None,) * 6, [None], True, memoryview(bytearray(64)).cast("Q"), lambda *given, **named: None, object()),
)
"""Arguments of all kinds."""


def compiled_classes() -> list[type]:
    """Return the compiled classes."""
    modules = [importlib.import_module(name) for name in module_names()]
    classes = [each for module in modules for each in vars(module).values() if isinstance(each, type)]
    names = {module.__name__ for module in modules}
    return [cls for cls in dict.fromkeys(classes) if cls.__module__ in names and not cls.__flags__ & HEAP_TYPE]


def call_at_random(classes: list[type], chance: random.Random, pipe: int) -> None:
    """Call methods and set attributes at random. Each call is written to the pipe first."""
    blanks = [cls.__new__(cls) for cls in classes]
    things: list[Any] = [*blanks, *ODD]
    for _ in range(CALLS):
        thing = chance.choice(blanks)
        name = chance.choice([each for each in dir(thing) if not each.startswith("__") or each == "__init__"])
        os.write(pipe, f"{type(thing).__name__}.{name}\n".encode())
        try:
            if chance.random() < 0.35:
                setattr(thing, name, chance.choice(things))
            else:
                attribute = getattr(thing, name)
                if callable(attribute):
                    attribute(*[chance.choice(things) for _ in range(chance.randint(0, 5))])
        except BaseException:
            pass  # Any exception is fine, as long as the process lives.


def run_child(classes: list[type], chance: random.Random) -> tuple[int, str]:
    """Return the signal that ended a child (0 if none did), and its last call."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open("/dev/null", os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        call_at_random(classes, chance, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        calls = pipe.read().split()
    _, status = os.waitpid(child, 0)
    return (os.WTERMSIG(status), calls[-1]) if os.WIFSIGNALED(status) else (0, "")


def test_random_calls_end_no_process(seed: int) -> None:
    """A policy that is its own rule recurses in C without a bound when its name or limit is read.

    Only that may end the process.
    """
    classes = compiled_classes()
    assert len(classes) > 25
    deaths = Counter(run_child(classes, random.Random(seed + each)) for each in range(ROUNDS))
    del deaths[0, ""]
    assert {
        death: times for death, times in deaths.items() if not death[1].endswith((".limit", ".name", ".rule"))
    } == {}
