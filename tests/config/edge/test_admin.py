"""The address for operators: the forms of `admin`, and unsafe ones."""

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.config.edge.admin import GUARD_HINT, Admin
from edgeproxy.config.edge.load import dump_settings, restore_settings
from edgeproxy.config.tokens import A_PAIR, AdminToken
from tests.config.conftest import LEAST, Load, Problems

DIGESTS = ("a" * 64, "b" * 64)
OPS = AdminToken(name="ops", sha256=DIGESTS[:1])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("unix", Admin()),
        ("127.0.0.1:9090", Admin(address=Address("127.0.0.1", 9090))),
        ("{address: 127.0.0.1:9090}", Admin(address=Address("127.0.0.1", 9090))),
        (
            f"{{address: 0.0.0.0:9090, tokens: 'ops:{DIGESTS[0]}', hosts: edge.internal 10.0.0.1}}",
            Admin(address=Address("0.0.0.0", 9090), tokens=(OPS,), hosts=("edge.internal", "10.0.0.1")),
        ),
        (
            f"{{address: 'edge:9090', tokens: [{{name: ops, sha256: [{', '.join(DIGESTS)}], expires: 1970-01-02}}]}}",
            Admin(
                address=Address("edge", 9090), tokens=(AdminToken(name="ops", sha256=DIGESTS, expires="1970-01-02"),)
            ),
        ),
    ],
)
def test_admin_setting_accepts_several_forms(loaded: Load, written: str, meant: Admin) -> None:
    settings = loaded(f"admin: {written}\n")
    assert settings.admin == meant
    assert [token.label for token in settings.admin.tokens] == [token.name for token in meant.tokens]
    message, _ = restore_settings(dump_settings(settings))
    assert message.admin == Admin(), "workers need not know who may ask"


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        ("0.0.0.0:9090", f"is 0.0.0.0:9090, which is not of this host alone, and has no tokens, {GUARD_HINT}"),
        (
            "edge.internal:9090",
            f"is edge.internal:9090, which is not of this host alone, and has no tokens, {GUARD_HINT}",
        ),
        (
            "{hosts: [edge]}",
            "has no address, and its socket asks for no tokens, write address: HOST:PORT beside them",
        ),
        ("http://127.0.0.1:9090", "'http://127.0.0.1:9090' is a URL, unix, HOST:PORT such as 127.0.0.1:9090"),
    ],
)
def test_invalid_admin_setting_is_refused(problems: Problems, written: str, reported: str) -> None:
    (problem,) = problems(LEAST + f"admin: {written}\n")
    assert problem.startswith(f"edge.yaml:3: admin: {reported}")


def test_tokens_have_names_and_are_there_once(problems: Problems) -> None:
    assert problems(LEAST + f"admin: {{address: '0.0.0.0:9', tokens: '{DIGESTS[0]}'}}\n") == [
        f"edge.yaml:3: admin.tokens: has a token without a name, {A_PAIR}"
    ]
    twice = f"{{name: a, sha256: {DIGESTS[0]}}}"
    assert problems(LEAST + f"admin: {{address: '0.0.0.0:9', tokens: [{twice}, {twice}]}}\n") == [
        "edge.yaml:3: admin.tokens.1.sha256: is the token that is defined already at edge.yaml:3, "
        "leave one of them out",
        "edge.yaml:3: admin.tokens.1.name: is the name of the token at edge.yaml:3, name each token once",
    ]
