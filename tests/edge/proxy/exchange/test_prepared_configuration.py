"""Configurations are prepared in the background, so neither requests nor the loop wait for them."""

import json
import subprocess
import sys
from pathlib import Path

from edgeproxy.config.edge.load import dump_settings, load_edge
from loadtest.testbed.process import ROOT

PREPARED = """
import json, os, sys
from edgeproxy.config.customers import Customer, Flag, Key, Subscriber
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
for configurations in json.load(sys.stdin):
    if os.fork():
        os.wait()
        continue
    for dumped in configurations:
        PreparedConfiguration(dumped.encode("latin-1"))
        print("jwt" in sys.modules, {each.__pydantic_complete__ for each in (Customer, Flag, Key, Subscriber)})
    break
"""
SERVED = "upstreams: {a: {endpoints: [http://a]}}\nroutes: [{path: /, upstream: a}]\n"
ISSUERS = "issuers: {id: {issuer: https://id.example, jwks: https://id.example/k, audiences: [x]}}\n"


def test_identity_models_are_built_and_jwt_is_imported_only_with_issuers(tmp_path: Path) -> None:
    file, told = tmp_path / "edge.yaml", []
    for config in (SERVED, SERVED + ISSUERS):
        file.write_text(config)
        told.append(dump_settings(load_edge(file, {})).decode("latin-1"))
    # A separate process for each, because other tests have imported and built the objects in this one.
    command = [sys.executable, "-c", PREPARED]
    ended = subprocess.run(
        command, cwd=ROOT, input=json.dumps([told[1:], told]), capture_output=True, check=True, text=True
    )
    assert ended.stdout == "True {True}\nFalse {True}\nTrue {True}\n"
