"""Each audit action states the owner of its details, so that no details stay unencrypted by oversight."""

import ast
from collections.abc import Iterator

from edgeproxy.collector.accounts.audit_details import CLEAR_ACTIONS, SEALED_ACTIONS
from loadtest.testbed.process import PACKAGE

COLLECTOR = PACKAGE / "collector"
OWNER_ARGUMENTS = 5
"""The number of arguments of an entry that names the owner of its details."""


def list_entries() -> Iterator[tuple[str, bool]]:
    """Yield the action of each entry in the code, and whether the entry names the owner of its details.

    Actions in variables are skipped: they are literals elsewhere.
    """
    for file in sorted(COLLECTOR.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "AuditEntry":
                action = node.args[0]
                if isinstance(action, ast.Constant):
                    yield str(action.value), len(node.args) == OWNER_ARGUMENTS


def test_each_action_is_encrypted_has_an_owner_or_a_reason() -> None:
    entries = dict(list_entries())
    assert len(entries) > 40
    assert not SEALED_ACTIONS & CLEAR_ACTIONS.keys()
    for action, has_owner in entries.items():
        assert has_owner != (action in SEALED_ACTIONS or action in CLEAR_ACTIONS), action
