"""Files of users with passwords: accepted files, and refusals that do not reveal a line."""

import json
from pathlib import Path

import pytest

from edgeproxy.config import htpasswd
from edgeproxy.config.edge.basic_users import BasicAuth
from edgeproxy.config.edge.load import dump_settings, restore_settings, try_load_edge
from tests.config.conftest import LEAST, Load, Problems, write

REST = "a" * 53
GOOD = f"$2y$10${REST}"
WITH_USERS = LEAST.replace("upstream: api}", "upstream: api, auth: {basic: users}}")
MAKE_IT = "make it with htpasswd -B -C 10 FILE USER"


def test_users_reach_workers_and_are_in_no_representation(loaded: Load) -> None:
    text = f"# team\n\nada:{GOOD}  \r\nzoë b:$2b$04${REST}\n".encode()
    settings = loaded(WITH_USERS, files={"users": text}, alone=True)
    restored, _ = restore_settings(dump_settings(settings))
    for each in (settings, restored):
        auth = each.routes[0].auth
        assert isinstance(auth, BasicAuth)
        assert auth.users == {"ada": GOOD, "zoë b": f"$2b$04${REST}"}
        assert (each.routes[0].auth_mode, auth.realm) == ("basic", "edgeproxy")
        assert REST not in repr(each)


def test_file_is_watched_and_a_part_of_the_configuration(folder: Path) -> None:
    sha256 = set()
    for name in ("ada", "bob"):
        write(folder, {"edge.yaml": WITH_USERS, "users": f"{name}:{GOOD}"})
        loaded = try_load_edge(Path("edge.yaml"), {})
        assert loaded.settings is not None
        assert "users" in loaded.signs
        sha256.add(loaded.settings.sha256)
    assert len(sha256) == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ada:$apr1$x$SECRET", "has a password by apr1 (MD5), not by bcrypt"),
        ("ada:{SHA}SECRET", "has a password by SHA-1, not by bcrypt"),
        ("ada:$6$x$SECRET", "has a password by SHA-512 (crypt), not by bcrypt"),
        (f"ada:$2x$10${REST}", "has a password by 2x, a faulty bcrypt, not by bcrypt"),
        ("ada:$2y$10$SECRET", "has a password by a malformed bcrypt, not by bcrypt"),
        ("ada:SECRET", "has a password by crypt or in clear text, not by bcrypt"),
        ("ada:", "has a password by crypt or in clear text, not by bcrypt"),
        (f"ada:$2y$13${REST}", "has a password with the cost 13, not 4 to 12"),
        (f"ada:$2y$03${REST}", "has a password with the cost 3, not 4 to 12"),
        ("SECRET", "has no colon"),
        (f":{GOOD}", "has no name of 1 to 255 bytes without control characters"),
        (f"a\tb:{GOOD}", "has no name of 1 to 255 bytes without control characters"),
        (f"{'é' * 128}:{GOOD}", "has no name of 1 to 255 bytes without control characters"),
        (f"eve :{GOOD}", "has a name with a space or a byte order mark around it"),
        (f"\ufeffeve:{GOOD}", "has a name with a space or a byte order mark around it"),
        (f"eve:{GOOD}", "has a user of an earlier line"),
        (b"ad\xff:SECRET", "is no UTF-8"),
    ],
)
def test_line_that_cannot_be_used_is_named_and_not_shown(problems: Problems, line: str | bytes, problem: str) -> None:
    content = f"eve:{GOOD}\n".encode() + (line.encode() if isinstance(line, str) else line)
    reported = problems(WITH_USERS, files={"users": content})
    assert reported == [f"edge.yaml:2: routes.0.auth.basic: line 2 of users: {problem}, {MAKE_IT}"]


def test_files_are_bounded_and_have_users(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    at = "edge.yaml:2: routes.0.auth.basic:"
    assert problems(WITH_USERS) == [
        f"{at} users cannot be read: No such file or directory, name a file that can be read"
    ]
    assert problems(WITH_USERS, files={"users": "# none\n"}) == [f"{at} users has no users, {MAKE_IT}"]
    large = "#" * ((256 << 10) + 1)
    assert problems(WITH_USERS, files={"users": large}) == [
        f"{at} users has more than 256 KiB, give each user a key instead"
    ]
    monkeypatch.setattr(htpasswd, "USERS_MAX", 1)
    assert problems(WITH_USERS, files={"users": f"a:{GOOD}\nb:{GOOD}"}) == [
        f"{at} users has 2 users, at most 1; give each one a key instead"
    ]


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("auth: {basic: users, users: {a: b}}", "auth.users: cannot be set, write the users into the file of basic"),
        ("auth: {basic: }", "auth.basic: "),
        ("auth: {realm: a}", "auth.basic: "),
        ("auth: {basic: users, realm: 'a\"b'}", "auth.realm: 'a\"b' is not a realm"),
        ("auth: {basic: users}, scopes: [read]", "scopes: nobody's key is looked at with auth: basic"),
        ("auth: {basic: users}, respond: {}", "auth: guards nothing where the edge itself answers"),
        ("auth: {basic: users}, redirect: /b", "auth: guards nothing where the edge itself answers"),
    ],
)
def test_settings_that_cannot_work_are_refused(problems: Problems, route: str, problem: str) -> None:
    upstream = "" if "respond" in route or "redirect" in route else "upstream: api, "
    text = LEAST.replace("upstream: api}", f"{upstream}{route}}}")
    reported = problems(text, files={"users": f"a:{GOOD}"})
    assert any(line.startswith(f"edge.yaml:2: routes.0.{problem}") for line in reported), reported


def test_redirect_to_tls_leads_to_the_users(problems: Problems) -> None:
    for redirect in ("https", "{to: https}"):
        text = WITH_USERS.replace("upstream: api,", f"upstream: api, redirect: {redirect},")
        assert problems(text, files={"users": f"a:{GOOD}"}) == []


def test_missing_package_is_named(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.config.edge.references.is_installed", lambda name: name != "bcrypt")
    assert problems(WITH_USERS, files={"users": f"a:{GOOD}"}) == [
        "edge.yaml:2: routes.0.auth: needs packages that are not installed, pip install 'edgeproxy[basic]'"
    ]


def test_hashes_of_a_dump_are_checked_too() -> None:
    with pytest.raises(ValueError, match="has a password by"):
        BasicAuth.model_validate_json(json.dumps({"basic": "users", "users": {"a": "SECRET"}}))
