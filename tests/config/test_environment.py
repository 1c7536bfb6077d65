"""Variables in scalars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.environment import UnresolvedVariableError, build_child_environment, resolve_variables

A_REFERENCE = "write ${NAME}, ${NAME:-default} or ${file:/PATH}, $${ for a plain ${"
ENDS = {"LINE": "one\n", "DOS": "one\r\n", "LINES": "one\n\n", "END": "\n"}
ENVIRON = {**ENDS, "A": "one", "EMPTY": "", "NESTED": "${A}", "BYTES": "\udcff"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${A}", "one"),
        ("x${A}y${A}z", "xoneyonez"),
        ("${A:-two}", "one"),
        ("${NO:-two}", "two"),
        ("${NO:-}", ""),
        ("${NO:-a:b c}", "a:b c"),
        ("${EMPTY}", ""),
        ("${EMPTY:-two}", "two"),
        ("${NESTED}", "${A}"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A {A} $", "$A {A} $"),
        ("x${LINE}y${LINE:-two}z", "xoneyonez"),
        ("${DOS}", "one"),
        ("${LINES}${END}", "one\n\n\n"),
    ],
)
def test_variables_are_replaced_once(written, meant):
    assert resolve_variables(written, ENVIRON) == meant


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("${NO}", "the environment has no variable NO", "set it, or write ${NO:-default}"),
        ("${BYTES}", "the variable BYTES is not UTF-8", "set it to text"),
        ("${BYTES:-x}", "the variable BYTES is not UTF-8", "set it to text"),
        *(
            (written, "has a ${ that begins no variable", A_REFERENCE)
            for written in ("${", "${}", "${1}", "${A", "${A-b}", "${A:b}", "${NO:-${A}}")
        ),
    ],
)
def test_unresolvable_variable_is_refused_with_the_reason(written, what, hint):
    with pytest.raises(UnresolvedVariableError) as caught:
        resolve_variables(written, ENVIRON)
    assert (caught.value.what, caught.value.hint) == (what, hint)


@given(st.text())
def test_values_are_not_looked_at_again(value):
    if "${" not in value:
        assert resolve_variables(value, {}) == value
    assert resolve_variables("${X}", {"X": value}) == value if value.isprintable() else True


def test_programs_get_neither_own_secrets_nor_variables_of_the_configuration():
    environ = {"CHILD_PATH": "/bin", "CHILD_PASSWORD": "hush", "EDGEPROXY_TOKEN": "hush", "STRIPE_SECRET_KEY": "hush"}
    resolve_variables("${CHILD_PASSWORD}", environ)
    assert build_child_environment(environ) == {"CHILD_PATH": "/bin"}
