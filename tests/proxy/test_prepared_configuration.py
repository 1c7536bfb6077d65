"""What is made beside the requests, so that neither they nor the loop wait for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.config.load import dump, load
from tests.support.process import ROOT

PREPARED = (
    "import sys; from edgeproxy.config.models import Customer, Flag, Key, Subscriber; "
    "from edgeproxy.proxy.prepared_configuration import PreparedConfiguration; "
    "PreparedConfiguration(sys.stdin.buffer.read()); "
    "print('jwt' in sys.modules, {each.__pydantic_complete__ for each in (Customer, Flag, Key, Subscriber)})"
)
SERVED = "upstreams: {a: {endpoints: [http://a]}}\nroutes: [{path: /, upstream: a}]\n"
ISSUERS = "issuers: {id: {issuer: https://id.example, jwks: https://id.example/k, audiences: [x]}}\n"


@pytest.mark.parametrize(("config", "said"), [(SERVED, "False {True}\n"), (SERVED + ISSUERS, "True {True}\n")])
def test_models_of_who_asks_are_built_and_jwt_is_imported_where_there_are_issuers(
    tmp_path: Path, config: str, said: str
) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(config)
    told = dump(load(file, {}))
    # In a process of its own: in this one others have built and imported them.
    ended = subprocess.run([sys.executable, "-c", PREPARED], cwd=ROOT, input=told, capture_output=True, check=True)
    assert ended.stdout.decode() == said
