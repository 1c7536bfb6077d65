"""Fast forms of `edgeproxy probe`, for health checks every second, without the libraries of commands and settings.

Those libraries would cost ten times the CPU of the request. This module answers only if the edge is healthy.
Everything else, for example other arguments or an edge that is not ready, is left to the command itself (running.py),
which reports the fault.
"""

import os
import re
import socket
from collections.abc import Sequence

from edgeproxy.base.admin_socket import NAME, short_path

SECONDS_MAX = 3.0
"""Seconds to wait for an answer, as in `probe`."""
EDGE = re.compile(r"^(?:upstreams|routes)[ \t]*:", re.MULTILINE)
"""Only an edge's configuration file has one of these."""
STATE = re.compile(r"^(state|include)\b[ \t]*:?(.*)$", re.MULTILINE)
"""The lines that can name the state directory."""
PLAIN_PATH = re.compile(r"[ \t]+([\"']?)([^\"'#${}\[\]\s]+)\1[ \t]*")
ADDRESS = re.compile(r"([0-9A-Za-z.-]{1,253}):([0-9]{1,5})")
DEFAULT_STATE = "var/edge"


def check_quickly(words: Sequence[str]) -> str | None:
    """Check an edge as `probe` does with these arguments. Returns its output, or None if the command must run
    instead.
    """
    options = _parse(words)
    if options is None:
        return None
    is_live = options.pop("--live", None) is not None
    try:
        with _connect(options) as connection:
            path = "/healthz" if is_live else "/readyz"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    except (OSError, ValueError):
        return None
    return ("alive" if is_live else "ready") if answer.startswith(b"HTTP/1.1 200 ") else None


def _parse(words: Sequence[str]) -> dict[str, str] | None:
    """Parse `--live` and at most one option that names the edge; None for all other arguments."""
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word == "--live":
            options[word] = ""
        elif word in ("-c", "--config", "--state", "--admin") and (value := next(rest, None)):
            options["-c" if word == "--config" else word] = value
        else:
            return None
    return options if len(options.keys() - {"--live"}) <= 1 else None


def _connect(options: dict[str, str]) -> socket.socket:
    """Connect to the admin listener. Raises OSError, and ValueError if the target is ambiguous."""
    if (address := options.get("--admin")) is not None:
        plain = ADDRESS.fullmatch(address)
        if plain is None:
            raise ValueError(address)
        host = "127.0.0.1" if plain[1] == "0.0.0.0" else plain[1]
        return socket.create_connection((host, int(plain[2])), SECONDS_MAX)
    state = _read_state(options["-c"]) if "-c" in options else options.get("--state", DEFAULT_STATE)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(SECONDS_MAX)
        with short_path(os.path.join(state, NAME)) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_state(path: str) -> str:
    """Read the state directory from an edge's file. Raises OSError, and ValueError if that needs a YAML parser."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    lines = STATE.findall(text)
    if not EDGE.search(text):
        raise ValueError("another kind of file")
    if not lines:
        return DEFAULT_STATE
    plain = PLAIN_PATH.fullmatch(lines[0][1])
    if len(lines) > 1 or lines[0][0] != "state" or plain is None:
        raise ValueError("not plain")
    return plain[2]
