"""Key services: master keys in files, and commands that are slow, noisy or wrong."""

import asyncio
import base64
import sys
from pathlib import Path

import pytest
import uvloop

from edgeproxy.collector.encryption import key_services
from edgeproxy.collector.encryption.key_services import (
    OUTPUT_BYTES_MAX,
    CommandKeyService,
    KeyServiceError,
    parse_master_key,
)
from loadtest.testbed.waiting import until

KEY = bytes(range(0x70, 0x90))
ECHO = "import sys; sys.stdout.write(sys.stdin.read())"


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (KEY, KEY),
        (KEY.hex().encode() + b"\n", KEY),
        (base64.b64encode(KEY), KEY),
        (b"correct horse battery staple 1 2", None),  # Typed by a person.
        (KEY[:16].hex().encode(), None),  # Half a key.
        (KEY + b"\n", None),
        (b"", None),
    ],
)
def test_a_master_key_is_as_long_as_it_is_random(content: bytes, key: bytes | None) -> None:
    assert parse_master_key(content) == key


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (ECHO, None),
        (f"import sys; sys.stderr.write('x' * {OUTPUT_BYTES_MAX}); " + ECHO, None),
        ("print('no base64!')", "wrote no Base64"),
        ("", "wrote no Base64"),
        ("import sys; sys.exit('the vault is sealed')", "exited with 1: the vault is sealed"),
        ("import sys\nwhile True: sys.stdout.write('A' * 4096)", "wrote more than"),
        ("import sys\nwhile True: sys.stderr.write('A' * 4096)", "wrote more than"),
        ("import sys, time; sys.stdin.close(); time.sleep(60)", "did not end within 1 seconds"),
        (
            "import os; os.close(0); os.close(1); os.close(2); import time; time.sleep(60)",
            "did not end within 1 seconds",
        ),
    ],
)
def test_a_command_answers_soon_and_shortly_or_is_ended(
    monkeypatch: pytest.MonkeyPatch, program: str, why: str | None
) -> None:
    monkeypatch.setattr(key_services, "COMMAND_SECONDS", 1.0 if why and "within" in why else 30.0)
    service = CommandKeyService([sys.executable, "-c", program])
    if why is None:
        assert asyncio.run(service.wrap(KEY)) == KEY
    else:
        with pytest.raises(KeyServiceError, match=why):
            asyncio.run(service.wrap(KEY))


def test_a_command_that_is_too_noisy_is_dead_with_all_that_it_began(tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text(f"#!/bin/sh\nyes &\necho $! >{tmp_path}/pid\nwait\n")
    noisy.chmod(0o700)
    with pytest.raises(KeyServiceError, match="wrote more than"):
        asyncio.run(CommandKeyService([str(noisy)]).unwrap(KEY))
    stat = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")

    def is_dead() -> bool:
        try:
            return ") Z " in stat.read_text()
        except (FileNotFoundError, ProcessLookupError):  # It may end between the opening and the reading.
            return True

    until(is_dead, "the process is dead")


def test_a_command_that_ended_before_it_was_written_to_has_a_reason() -> None:
    async def call() -> bytes | None:
        pipe = asyncio.subprocess.PIPE
        program = [sys.executable, "-c", "import sys; sys.exit('no vault')"]
        process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, stderr=pipe)
        await process.wait()
        assert process.stdin is not None
        while not process.stdin.is_closing():  # noqa: ASYNC110 - the transport has no event for it
            await asyncio.sleep(0)
        _, reason = await key_services._communicate(process, KEY)
        return reason

    assert uvloop.run(call()) == b"no vault\n"
