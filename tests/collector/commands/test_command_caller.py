"""The name of the user behind a command's change, on machines with and without user names."""

import getpass

import pytest

from edgeproxy.collector.commands.command_caller import get_command_caller


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 3_000_000)
    assert get_command_caller().actor == "command line: uid 3000000"
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert get_command_caller().actor == "command line: ada"
