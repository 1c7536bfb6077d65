"""Real processes with a part that hangs after the signal to end."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from edgeproxy.base import event_loop, log
from edgeproxy.base.exit_deadline import end_after_signals

async def refuse():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    end_after_signals([signal.SIGTERM], lambda: 0.3, lambda: os.write(1, b"before"))
    os.write(1, b"ready")
    if sys.argv[1] == "thread":
        waiting = asyncio.create_task(asyncio.to_thread(time.sleep, 60))
    elif sys.argv[1] == "task":
        waiting = asyncio.create_task(refuse())
    elif sys.argv[1] == "loop":
        time.sleep(60)
    elif sys.argv[1] == "log":
        while True:
            log.get_logger().info("a line that nobody reads", text="x" * 4096)
    await stop.wait()

event_loop.run(main())
"""


@pytest.mark.parametrize("hanging", ["thread", "task", "loop", "log"])
def test_exit_deadline_ends_a_hanging_process(hanging: str) -> None:
    read, write = os.pipe()
    command = [sys.executable, "-c", PROGRAM, hanging]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write) as process:
        os.close(write)
        assert process.stdout is not None
        try:
            assert process.stdout.read(5) == b"ready"
            if hanging == "log":  # Wait until the pipe is full.
                held = -1
                while held != (held := count_bytes(read)):
                    time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stdout.read() == b"before"
        finally:
            process.kill()
            os.close(read)


def test_process_that_ends_by_itself_does_so_at_once() -> None:
    command = [sys.executable, "-c", PROGRAM, "nothing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, b"", b"")


def count_bytes(pipe: int) -> int:
    """Return the number of unread bytes in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


def test_lines_are_lost_where_the_disk_of_the_log_is_full() -> None:
    program = """
from edgeproxy.base import log
for _ in range(99):
    log.get_logger().info("a line", text="x" * 999)
print("well")
"""
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False)
    assert result.stdout == b"well\n"
