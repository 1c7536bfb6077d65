"""Every problem of the collector has a code of the table, with figures for its sentence and words for pages."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from edgeproxy.base.problem_codes import TYPE_BASE, ProblemCode
from edgeproxy.collector.api.responses import TITLES, problem
from edgeproxy.collector.languages.catalogs import DEFAULT, LANGUAGES, load_catalog
from edgeproxy.collector.pages.refusal_words import FIELD_WORDS
from edgeproxy.collector.problems.table import CODES, SECTIONS
from edgeproxy.config import field_codes
from edgeproxy.config.field_codes import FIELD_CODES
from loadtest.testbed.process import PACKAGE

FORM = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
HOLE = re.compile(r"%\((\w+)\)s")
CONSTANTS = {code.name.upper().replace("-", "_"): code for code in CODES.values()}
FIELD_CONSTANTS = {name: code for name, code in vars(field_codes).items() if code in FIELD_CODES.values()}
FOR_PROGRAMS = frozenset(
    (
        *("api/app.py", "api/auth.py", "api/request_reader.py", "api/directory.py", "api/edges.py", "api/events.py"),
        *("api/quotas.py", "api/residency.py", "api/traffic/handlers.py", "api/webhooks.py", "accounts/flags.py"),
        *("residency/arrival.py", "residency/credit_transfers.py", "residency/departure.py", "residency/moves.py"),
        "pages/missing.py",
    )
)
"""Modules that may raise problems without words: no page meets these (missing.py shows the words of the status)."""

SHARED = (
    {"calls-exceeded", "changes-exceeded", "sign-in-exceeded"},
    {"row-unreadable", "idempotent-answer-lost"},
    {"idempotency-key-invalid", "if-match-invalid", "form-incomplete"},
    {"version-changed", "changed-meanwhile"},
    {"token-missing", "token-invalid"},
    {"role-denied", "role-missing", "consent-missing", "other-customer"},
    {"customer-not-found", "customer-missing"},
    {"consumption-not-found", "dead-letter-not-found"},
    {"event-invalid", "event-rejected"},
    {"form-type-unsupported", "form-unreadable"},
    {"link-unusable", "subscription-link-unusable"},
)
"""Codes with one meaning for a reader of pages."""
SAID_ELSEWHERE = frozenset(
    {"AMOUNT_INVALID", "CREDITS_EXCEEDED", "DAY_NOT_OVER", "STATEMENT_NOT_FOUND", "STRIPE_UNAVAILABLE"}
)
"""Problems whose words, or fields, say as much as the error that the reason quotes."""


@cache
def parse_product() -> dict[str, list[ast.AST]]:
    """Return the nodes of each module that can raise a problem of the collector, by its path."""
    rooms = (PACKAGE / "collector", PACKAGE / "config")
    files = [path for room in rooms for path in room.rglob("*.py") if path.parent.name != "problems"]
    parsed = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in files}
    return {path.removeprefix("collector/"): list(ast.walk(module)) for path, module in parsed.items()}


def list_uses() -> Iterator[tuple[str, str]]:
    """Yield each use of a constant of the table, with the module's path."""
    for path, nodes in parse_product().items():
        for node in nodes:
            if isinstance(node, ast.Attribute) and node.attr in CONSTANTS:
                yield path, node.attr
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgeproxy.collector.problems"):
                yield from ((path, alias.name) for alias in node.names if alias.name in CONSTANTS)


def list_raises() -> Iterator[tuple[str, str, set[str]]]:
    """Yield the place of each call with a constant that has figures, the words of the constant, and the figures."""
    for path, nodes in parse_product().items():
        for node in nodes:
            if not isinstance(node, ast.Call):
                continue
            for argument in node.args:
                name = getattr(argument, "attr", None) or getattr(argument, "id", None) or ""
                if words := find_words(name):
                    keys = [key for part in ast.walk(node) for key in getattr(part, "keys", ())]
                    given = {word.arg or "" for word in node.keywords} | {
                        str(getattr(key, "value", "")) for key in keys
                    }
                    yield f"{path}:{node.lineno}", words, given


def list_quoting() -> Iterator[str]:
    """Yield each constant whose reason quotes another error."""
    for nodes in parse_product().values():
        for node in nodes:
            if not isinstance(node, ast.Call):
                continue
            names = [getattr(argument, "attr", None) or getattr(argument, "id", None) for argument in node.args]
            for name, reason in zip(names, node.args[1:], strict=False):
                if name in CONSTANTS:
                    quoted = {getattr(part, "id", "") for part in ast.walk(reason)}
                    if quoted & {"error", "failure", "receipt"}:
                        yield name


def find_words(constant: str) -> str:
    """Return the words of a constant, of a problem or of a field; empty for another name."""
    if constant in CONSTANTS:
        return CONSTANTS[constant].words
    field = FIELD_CONSTANTS.get(constant)
    return "" if field is None else f"{field.meaning} {FIELD_WORDS.get(field.name, '')}"


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_row_says_status_meaning_and_remedy(code: ProblemCode) -> None:
    assert FORM.fullmatch(code.name)
    assert code.status in TITLES
    assert code.meaning.endswith(".")
    assert code.remedy.endswith(".")
    assert CONSTANTS[code.name.upper().replace("-", "_")] is code


def test_a_name_is_in_one_row() -> None:
    names = [code.name for section in SECTIONS for code in section]
    assert sorted(names) == sorted(CODES)


def test_every_row_is_used() -> None:
    assert CONSTANTS.keys() - {constant for _, constant in list_uses()} == set()


def test_each_raised_problem_fills_the_placeholders_of_its_sentence() -> None:
    raised = list(list_raises())
    assert len([words for _, words, _ in raised if HOLE.search(words)]) >= 15
    lacking = [place for place, words, given in raised if not set(HOLE.findall(words)) <= given]
    assert lacking == []


def test_a_reason_that_quotes_an_error_is_shown() -> None:
    quoting = {constant for constant in list_quoting() if CONSTANTS[constant].words}
    assert {"STRIPE_REFUSED", "BATCH_INVALID", "EVENT_REJECTED"} <= quoting
    assert {constant for constant in quoting if not CONSTANTS[constant].has_reason} == SAID_ELSEWHERE


def test_two_problems_have_two_sentences_unless_they_mean_the_same() -> None:
    codes_by_words: dict[str, set[str]] = {}
    for code in CODES.values():
        codes_by_words.setdefault(code.words or code.name, set()).add(code.name)
    shared = [codes for codes in codes_by_words.values() if len(codes) > 1]
    assert sorted(shared, key=sorted) == sorted(SHARED, key=sorted)


def test_every_problem_that_a_page_can_meet_has_words() -> None:
    silent = {constant for constant, code in CONSTANTS.items() if not code.words}
    assert {path for path, constant in list_uses() if constant in silent} == FOR_PROGRAMS


@pytest.mark.parametrize("language", sorted(LANGUAGES.keys() - {DEFAULT}))
def test_every_word_is_translated(language: str) -> None:
    translate = load_catalog(language).gettext
    words = {code.words for code in CODES.values()} | set(FIELD_WORDS.values())
    assert {word for word in words if word and translate(word) == word} == set()


def test_every_code_of_a_field_has_words_unless_only_programs_can_cause_it() -> None:
    of_programs = {code.name for code in (field_codes.INVALID, field_codes.UNKNOWN, field_codes.WRONG_TYPE)}
    assert FIELD_CODES.keys() - FIELD_WORDS.keys() == of_programs
    assert FIELD_WORDS.keys() - FIELD_CODES.keys() == set()


def test_only_responses_module_writes_problem_documents() -> None:
    writers = {
        path
        for path, nodes in parse_product().items()
        for node in nodes
        if isinstance(node, ast.Constant) and node.value == "application/problem+json"
    }
    assert writers - {"config/edge/compression.py", "config/edge/error_bodies.py"} == {"api/responses.py"}


def test_a_problem_states_its_code_and_type() -> None:
    answer = problem(CONSTANTS["KEYS_FULL"], "too many", params={"count": 3})
    assert answer.body == (
        b'{"type":"%bkeys-full","code":"keys-full","title":"Conflict","status":409,"detail":"too many",'
        b'"params":{"count":3}}' % TYPE_BASE.encode()
    )
