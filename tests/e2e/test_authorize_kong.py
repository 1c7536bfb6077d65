"""The Kong scripts of docs/edge/authorize.md, run in HAProxy's Lua with stand-ins for Kong's functions."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.companions import HAPROXY, shown

STAND_INS = """
local log = {}
local function note(...) log[#log + 1] = table.concat({...}, " ") end
local answer = %(answer)s
local fields = %(fields)s
local sent
ngx = { req = { get_headers = function() return fields, %(truncated)s end },
        var = { request_uri = "%(target)s", upstream_uri = "%(upstream)s" } }
local client = { set_timeout = function() end, request_uri = function(_, url, options)
    note("asks", url)
    for name, value in pairs(options.headers) do note("states", name, value) end
    return answer, "connection refused"
end }
local function headers(of) for name, value in pairs(of or {}) do note("answers", name, value) end end
kong = {
    ctx = { shared = {} },
    client = { get_forwarded_ip = function() return "192.0.2.7" end },
    request = { get_method = function() return "POST" end, get_forwarded_scheme = function() return "https" end },
    response = {
        exit = function(status, body, fields) note("exits", status, body or "-") headers(fields) end,
        set_header = function(name, value) note("adds", name, value) end,
    },
    service = { request = {
        set_header = function(name, value) note("sets", name, value) end,
        clear_header = function(name) note("clears", name) end,
    } },
}
require = function(name) assert(name == "resty.http") return { new = function() return client end } end
"""


def lua(value: Any) -> str:
    """Return a literal of Lua."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(name)}] = {lua(each)}" for name, each in value.items()) + "}"
    return "nil" if value is None else json.dumps(value)


def run(folder: Path, answer: Any, upstream: str = "/v1/x", truncated: str | None = None, **fields: str) -> set[str]:
    """Run the scripts for a request of /v1/x?q=1 with these fields.

    `answer` is the edge's answer. Return their actions.
    """
    assert HAPROXY is not None
    (plugin,) = yaml.safe_load(shown("kong"))["plugins"]
    values = {"target": "/v1/x?q=1", "upstream": upstream, "truncated": lua(truncated)}
    values |= {"answer": lua(answer), "fields": lua({name.replace("_", "-"): value for name, value in fields.items()})}
    chunks = [f"(function()\n{plugin['config'][phase][0]}\nend)()" for phase in ("access", "header_filter")]
    log = folder / "log"
    write = f'local file = io.open("{log}", "w") file:write(table.concat(log, "\\n")) file:close()'
    (folder / "kong.lua").write_text("\n;".join([STAND_INS % values, *chunks, write]))
    (folder / "haproxy.cfg").write_text(f"global\n    lua-load {folder}/kong.lua\n")
    # Of its own configuration it may say that it is of no use.
    result = subprocess.run([HAPROXY, "-c", "-f", folder / "haproxy.cfg"], capture_output=True, text=True, check=False)
    assert log.exists(), result.stderr
    return set(log.read_text().splitlines())


@pytest.mark.skipif(HAPROXY is None, reason="there is no haproxy on this machine")
def test_kong_script_sends_the_request_and_applies_the_whole_answer(tmp_path: Path) -> None:
    headers = {"x-customer-id": "acme", "authorization": "", "ratelimit": '"a";r=1'}
    did = run(
        tmp_path,
        {"status": 200, "headers": headers},
        x_api_key="secret",
        x_original_uri="/free",
        x_forwarded_for="10.0.0.1",
        connection="x-customer-id",
        content_length="9",
    )
    stated = {line for line in did if line.startswith("states")}
    assert stated == {
        "states x-api-key secret",
        "states x-original-method POST",
        "states x-original-uri /v1/x?q=1",
        "states x-forwarded-for 192.0.2.7",
        "states x-forwarded-proto https",
    }
    overwritten = {line.split()[1] for line in did if line.startswith(("sets", "clears"))}
    haproxy = shown("haproxy").partition("TAKEN = {")[2].partition("}")[0]
    for name in haproxy.split('"')[1::2]:
        assert name in overwritten, "HAProxy takes it over"
    assert {"sets x-customer-id acme", "clears authorization", "clears x-api-key", "clears x-original-uri"} <= did
    assert {"sets connection keep-alive", 'adds ratelimit "a";r=1'} <= did
    assert not any(line.startswith("exits") for line in did)


@pytest.mark.skipif(HAPROXY is None, reason="there is no haproxy on this machine")
def test_kongs_script_forwards_only_allowed_requests(tmp_path: Path) -> None:
    refused = run(tmp_path, {"status": 429, "headers": {"retry-after": "7", "server": "x"}, "body": "late"})
    assert {"exits 429 late", "answers retry-after 7"} <= refused
    assert "answers server x" not in refused
    assert "exits 503 -" in run(tmp_path, None)
    assert "exits 503 -" in run(tmp_path, {"status": 302, "headers": {}})
    assert run(tmp_path, {"status": 200, "headers": {}}, upstream="/v1/y") == {"exits 400 -"}
    assert run(tmp_path, {"status": 200, "headers": {}}, truncated="truncated") == {"exits 431 -"}


def test_kong_forwards_the_decided_request() -> None:
    (service,) = yaml.safe_load(shown("kong"))["services"]
    assert service["url"].count("/") == 2
    assert [(route["strip_path"], route["preserve_host"]) for route in service["routes"]] == [(False, True)]
