"""Key services: they hold the master key, and wrap and unwrap the keys in the database.

They are used at the start, when keys are unwrapped again, and by `edgeproxy encryption rotate`, but never for a row.
"""

import asyncio
import base64
import binascii
import os
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeproxy.config.environment import build_child_environment

KEY_BYTES = 32
NONCE_BYTES = 12
COMMAND_SECONDS = 10.0
"""Seconds that a command may take."""
OUTPUT_BYTES_MAX = 65536
"""The most bytes of a command's standard output, and of its standard error."""
REASON_CHARACTERS_MAX = 200
PURPOSE = b"edgeproxy wrapped key"


class KeyServiceError(Exception):
    """A key service is unavailable, or cannot unwrap a key. The message is a sentence."""


class KeyService(Protocol):
    """The holder of a master key."""

    name: str

    async def wrap(self, key: bytes) -> bytes:
        """Return a key wrapped so that only this service can unwrap it. Raises KeyServiceError."""

    async def unwrap(self, wrapped: bytes) -> bytes:
        """Return an unwrapped key. Raises KeyServiceError."""


class FileKeyService:
    """A master key in a file. The file is read every time, so that its loss is noticed."""

    def __init__(self, path: Path) -> None:
        self.name = f"file {path}"
        self._path = path

    async def wrap(self, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + (await self._read()).encrypt(nonce, key, PURPOSE)

    async def unwrap(self, wrapped: bytes) -> bytes:
        try:
            return (await self._read()).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], PURPOSE)
        except (InvalidTag, ValueError):  # ValueError: shorter than any wrapped key.
            raise KeyServiceError(f"{self.name} has another master key than this was wrapped by") from None

    async def _read(self) -> AESGCM:
        try:
            with await asyncio.to_thread(self._path.open, "rb") as file:
                mode, content = os.fstat(file.fileno()).st_mode, file.read(4 * KEY_BYTES)
        except OSError as error:
            raise KeyServiceError(f"{self.name} cannot be read: {error.strerror}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyServiceError(f"{self.name} is open to others than its owner: chmod 600")
        if (key := parse_master_key(content)) is None:
            raise KeyServiceError(f"{self.name} is no master key: 32 random bytes, or these in hex or Base64")
        return AESGCM(key)


def parse_master_key(content: bytes) -> bytes | None:
    """Return the master key in a file's content: raw bytes, hex or Base64; None if there is none.

    32 printable characters are refused: they were typed, or are half a key in hex.
    """
    if len(content) == KEY_BYTES:
        return None if all(0x20 <= byte < 0x7F for byte in content) else content
    text = content.strip()
    for decode in (binascii.unhexlify, lambda one: base64.b64decode(one, validate=True)):
        try:
            key = decode(text)
        except ValueError:
            continue
        if len(key) == KEY_BYTES:
            return key
    return None


class CommandKeyService:
    """A program that wraps and unwraps keys, for example with a vault, an HSM, or a provider's key management."""

    def __init__(self, command: Sequence[str]) -> None:
        self.name = f"command {command[0]}"
        self._command = command

    async def wrap(self, key: bytes) -> bytes:
        return await self._call("wrap", key)

    async def unwrap(self, wrapped: bytes) -> bytes:
        return await self._call("unwrap", wrapped)

    async def _call(self, verb: str, value: bytes) -> bytes:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                verb,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                start_new_session=True,
                env=build_child_environment(os.environ),
            )
        except (OSError, ValueError) as error:
            raise KeyServiceError(f"{self.name} cannot be started: {error}") from None
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output, reason = await _communicate(process, base64.b64encode(value) + b"\n")
        except TimeoutError:
            raise KeyServiceError(f"{self.name} {verb} did not end within {COMMAND_SECONDS:g} seconds") from None
        finally:
            if process.returncode is None:
                _kill(process)
                await process.wait()
        if output is None or reason is None:
            raise KeyServiceError(f"{self.name} {verb} wrote more than {OUTPUT_BYTES_MAX} bytes")
        if process.returncode:
            last = reason.decode(errors="replace").strip().rpartition("\n")[2][:REASON_CHARACTERS_MAX]
            raise KeyServiceError(f"{self.name} {verb} exited with {process.returncode}: {last or 'no reason'}")
        try:
            result = base64.b64decode(output.strip(), validate=True)
        except ValueError:
            result = b""
        if not result:
            raise KeyServiceError(f"{self.name} {verb} wrote no Base64")
        return result


async def _communicate(process: asyncio.subprocess.Process, written: bytes) -> tuple[bytes | None, bytes | None]:
    """Write to a process, and return its output and its errors when it has ended.

    An output that is too large is None, and the process is killed.
    """
    assert process.stdin is not None
    if not process.stdin.is_closing():  # It is closing if the program has already ended. A write would raise then.
        process.stdin.write(written)
    process.stdin.close()

    async def read(stream: asyncio.StreamReader | None) -> bytes | None:
        assert stream is not None
        try:
            await stream.readexactly(OUTPUT_BYTES_MAX + 1)
        except asyncio.IncompleteReadError as error:
            return error.partial
        _kill(process)
        while await stream.read(OUTPUT_BYTES_MAX):  # The rest in the pipe, until it is closed.
            pass
        return None

    read_both = await asyncio.gather(read(process.stdout), read(process.stderr))
    await process.wait()
    return read_both


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # Including its child processes.
