"""The runner of public test suites: its verdicts, and the documentation of every excused difference."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loadtest.suites.__main__ import worse
from loadtest.suites.differences import DIFFERENCES
from loadtest.suites.suite import FAILED, HERE, PASSED, SKIPPED, SUITES, numbered
from loadtest.testbed.ports import Ports

PAGE = Path(__file__).parents[2] / "docs" / "start" / "compatibility.md"


def test_worse_lists_tests_that_only_nginx_passes() -> None:
    nginx = {"both": PASSED, "worse": PASSED, "gone": PASSED, "better": FAILED, "not run": SKIPPED}
    edge = {"both": PASSED, "worse": FAILED, "better": PASSED, "not run": FAILED}
    assert worse({"nginx": nginx, "edge": edge}) == ["worse", "gone"]
    assert worse({"edge": edge}) == []


def test_repeated_test_names_are_numbered() -> None:
    assert numbered([("a", PASSED), ("a", FAILED), ("b", PASSED)]) == {"a": PASSED, "a #2": FAILED, "b": PASSED}


def test_every_difference_that_is_excused_has_its_section() -> None:
    headings = set(re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE))
    assert DIFFERENCES.keys() <= SUITES.keys()
    assert {heading for differences in DIFFERENCES.values() for _, heading in differences} <= headings


PROGRAM = """
const http = require('http');
const server = http.createServer((request, response) => response.end('there')).listen(0);
const told = server.address().port;
server.on('listening', () => http.get({ port: %d, host: '127.0.0.1' }, (answer) => {
  answer.resume();
  answer.on('end', () => server.close(() => console.log(told, answer.statusCode)));
}));
"""


@pytest.mark.skipif(
    shutil.which("node") is None, reason="there is no Node here, or scripts/environment npm has not run"
)
def test_suite_server_listens_on_a_hidden_port_and_reports_the_public_one() -> None:
    ports = Ports(2)
    public, hidden = ports.numbers
    ports.close()
    ran = subprocess.run(
        ["node", "--require", str(HERE / "interpose.cjs"), "-e", PROGRAM % hidden],
        env={**os.environ, "SUITE_SLOTS": f"{public}:{hidden}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.split() == [str(public), "200"], ran.stderr
