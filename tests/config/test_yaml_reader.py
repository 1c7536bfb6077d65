"""One file as a tree."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.environment import UnresolvedVariableError, build_child_environment, resolve_variables
from edgeproxy.config.tree import Mark
from edgeproxy.config.yaml_reader import ALIASED_VALUES_MAX, InvalidYamlError, parse_yaml


def read(text, environ=None):
    """Return the tree of a file, and the reports (line, path, problem, hint)."""
    reported = []

    def report(mark, path, what, hint):
        assert Mark.unpack(mark).file == 7
        reported.append((Mark.unpack(mark).line, path, what, hint))

    tree = parse_yaml(text if isinstance(text, bytes) else text.encode(), 7, environ or {}, report)
    return tree, reported


def refusal(text):
    """Return the line, the problem and the hint."""
    with pytest.raises(InvalidYamlError) as caught:
        read(text)
    return caught.value.line, caught.value.what, caught.value.hint


def test_every_scalar_is_text_as_written():
    tree, reported = read("region: no\na: [007, 1.50, true, 2027-01-01, 'x', \"y\"]\nb: {c: 0x10}\n")
    assert tree == {"region": "no", "a": ["007", "1.50", "true", "2027-01-01", "x", "y"], "b": {"c": "0x10"}}
    assert reported == []


def test_yaml_nodes_know_their_lines():
    tree, _ = read("a: 1\nb:\n  c: 2\n  d:\n    - 3\n\n    - {e: 4,\n       f: 5}\n")
    lines = [
        [Mark.unpack(mark).line for mark in node.marks] for node in (tree, tree["b"], tree["b"]["d"], tree["b"]["d"][1])
    ]
    assert lines == [[1, 2], [3, 4], [5, 7], [7, 8]]


def test_yaml_reader_needs_about_six_times_the_file_size():
    many = 2000
    text = "keys:\n" + "".join(f"  - {{sha256: {n:064x}, customer: customer-{n}}}\n" for n in range(many))
    content = text.encode()
    tracemalloc.start()
    try:
        tree, _ = read(content)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tree["keys"]) == many
    assert most < 6.5 * len(content)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\n\n", "\ufeff", "~", "null"])
def test_an_empty_file_says_nothing(text):
    assert read(text) == ({}, [])


def test_json_is_read_too():
    assert read('{"a": [1, {"b": "c"}], "d": "\\u00e9"}')[0] == {"a": ["1", {"b": "c"}], "d": "é"}


def test_a_byte_order_mark_and_other_line_ends_do_no_harm():
    tree, _ = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert tree == {"a": "1", "b": "2"}
    assert Mark.unpack(tree.marks[1]).line == 2


@pytest.mark.parametrize("nothing", ["", "~", "null", "Null", "NULL", "# a comment"])
def test_empty_values_are_reported(nothing):
    tree, reported = read(f"a:\n  b: {nothing}\n")
    assert tree == {"a": {"b": None}}
    assert reported == [(2, ("a", "b"), "has no value", "write one, or leave it out")]


def test_empty_members_are_reported_and_quoted_ones_are_text():
    tree, reported = read("a:\n  -\n  - ''\n  - 'null'\n")
    assert tree == {"a": [None, "", "null"]}
    assert reported == [(2, ("a", 0), "has no value", "write one, or leave it out")]


def test_duplicate_field_is_reported_with_both_lines():
    tree, reported = read("tiers:\n  basic: 1\n  pro: 2\n  basic: {x: }\n")
    assert tree == {"tiers": {"basic": "1", "pro": "2"}}
    assert reported == [
        (4, ("tiers", "basic", "x"), "has no value", "write one, or leave it out"),
        (4, ("tiers", "basic"), "is there already in line 2", "leave one of them out"),
    ]


def test_variables_are_replaced_in_values_and_names():
    tree, reported = read('a: "${N:-5}"\n${WHO}: ["x${N}"]\nplain: $${N}\n', {"N": "7", "WHO": "acme"})
    assert tree == {"a": "7", "acme": ["x7"], "plain": "${N}"}
    assert reported == []


def test_variables_do_not_change_the_structure():
    tree, reported = read("a: ${X}\nb: ${X}\n", {"X": "1\nc: [2]\n# {"})
    assert tree == {"a": "1\nc: [2]\n# {", "b": "1\nc: [2]\n# {"}
    assert reported == []


def test_an_empty_variable_is_an_empty_text():
    assert read("a: ${X}\nb: ${Y:-}\n", {"X": ""}) == ({"a": "", "b": ""}, [])


def test_variables_that_are_not_there_are_all_reported():
    tree, reported = read("a: ${X}\nb: ['${Y}']\n${Z}: 1\nc: '${'\n")
    assert tree == {"a": None, "b": [None], "c": None}
    assert [(line, path, what) for line, path, what, _ in reported] == [
        (1, ("a",), "the environment has no variable X"),
        (2, ("b", 0), "the environment has no variable Y"),
        (3, ("${Z}",), "the environment has no variable Z"),
        (4, ("c",), "has a ${ that begins no variable"),
    ]


def test_yaml_aliases_and_merges_resolve():
    tree, reported = read(
        "a: &one {x: 1, y: 2}\nb: *one\nc: {<<: *one, y: 3}\nd: &two {z: 4}\ne:\n  <<: [*one, *two]\nf: '<<'\n"
        "g: &n 5\nh: [*n]\n"
    )
    assert tree["b"] == {"x": "1", "y": "2"}
    assert tree["c"] == {"y": "3", "x": "1"}
    assert tree["e"] == {"x": "1", "y": "2", "z": "4"}
    assert tree["h"] == ["5"]
    assert [Mark.unpack(mark).line for mark in tree["e"].marks] == [1, 1, 4]
    assert reported == []


def test_aliases_may_be_many_but_no_bomb():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert refusal("l0: &l0 x\n" + levels) == (
        6,
        f"aliases stand for more than {ALIASED_VALUES_MAX} values",
        "write them out",
    )
    assert len(read("a: &a [1, 2]\nb: [" + "*a, " * 30_000 + "]")[0]["b"]) == 30_000


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        ("a: *b\n", 1, "*b stands for nothing", "write &b at what is meant, before it"),
        ("a: 1\nb: &b [*b]\n", 2, "*b is a part of what it stands for", "write out what is meant"),
        ("a: &a x\nb: {<<: *a}\n", 2, "has a << that is no mapping", "write <<: *NAME, of a mapping"),
        ("a: !!int 5\n", 1, "has the tag 'tag:yaml.org,2002:int'", "leave it out"),
        ("a: 1\nb: !env X\n", 2, "has the tag '!env'", "leave it out"),
        ("- a\n", 1, "is not a mapping", "write fields such as `region: eu-west`"),
        ("${X}\n", 1, "is not a mapping", "write fields such as `region: eu-west`"),
        ("# x\n\njust text\n", 3, "is not a mapping", "write fields such as `region: eu-west`"),
        ("a: 1\n---\nb: 2\n", 2, "has a second document", "leave out the ---, or include another file"),
        ("[a]: 1\n", 1, "has more than a word for a field's name", "write the name"),
        ("? [a]\n: 1\n", 1, "has more than a word for a field's name", "write the name"),
        ("a: 1\nb: " + "[" * 40 + "]" * 40, 2, "is nested more than 24 deep", "no field is"),
        (b"a: 1\nb: \xff\n", 2, "has the byte 0xff", "write it in UTF-8"),
        ("a: 1\n\nb: \x07\n", 3, "has the control character U+0007", "leave it out"),
        ("a: b: c\n", 1, "is not YAML: mapping values are not allowed in this context", "check the brackets"),
        ("a:\n  b: 1\n c: 2\n", 3, "is not YAML: did not find expected key while parsing a block mapping that "
         "begins in line 1", "check the brackets"),
        ("a: {b: 1\n", 1, "is not YAML: did not find expected ',' or '}'", "check the brackets"),
        ("a: 'b\n", 1, "is not YAML: found unexpected end of stream", "check the brackets"),
        ("a:\n\tb: 1\n", 2, "is not YAML: found character that cannot start any token", "indent with spaces: the line "
         "begins with a tab"),
        ("a: [${B}]\n", 1, "is not YAML: did not find expected", "put a value with a ${VARIABLE} in quotes"),
        ("a: @b\n", 1, "is not YAML: found character that cannot start any token", "put a value that begins with @, "
         "` or % in quotes"),
    ],
)  # fmt: skip
def test_invalid_yaml_is_refused_with_its_line(text, line, what, hint):
    result = refusal(text)
    assert result[0] == line
    assert result[1].startswith(what)
    assert result[2].startswith(hint)


@given(st.text())
def test_any_text_is_a_tree_or_refused(text):
    try:
        tree, _ = read(text.encode("utf-8", "surrogatepass"))
    except InvalidYamlError as error:
        line = error.line
    else:
        line = 1
        assert isinstance(tree, dict)
    assert 1 <= line <= len(text.splitlines()) + 1


names = st.text("abcdefghij", min_size=1, max_size=4)
values = st.recursive(
    st.text("abc 123:#'\"[]{}-,\n\té", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(names, values))
def test_yaml_reader_parses_any_json_value(value):
    import json

    assert read(json.dumps(value))[0] == value


# ---- variables in scalars


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
