"""Each text of the pages exists in each language, with equal figures."""

import ast
import re

import pytest

from edgeproxy.collector.accounts.audit_details import CLEAR_ACTIONS, SEALED_ACTIONS
from edgeproxy.collector.billing.reports import business_report
from edgeproxy.collector.billing.subscriptions.changes import CHANGE, PERIOD, START, THRESHOLD
from edgeproxy.collector.languages.billing_words import INVOICE_KINDS
from edgeproxy.collector.languages.catalogs import DEFAULT, LANGUAGES, load_catalog
from edgeproxy.collector.pages import words
from edgeproxy.collector.pages.audit_words import AUDIT_ACTIONS
from tests.collector.languages.catalogues import COLLECTOR, ROOMS, texts, translations

HOLE = re.compile(r"%\((\w+)\)s")
OTHER_WORDS = {
    "de": r"\b(Plan|Plans|Pläne|Plänen|Verbrauch|Verbrauchs|Probezeit|Zahlungsmittel|(?<!-)Mails?|Unterschrift)\b",
    "nl": r"\b(plan|plannen|[Hh]et gebruik|proeftijd|[Cc]oupon|[Bb]etaalmiddel|[Bb]etaalwijze|[Aa]anvaar\w+)\b",
}
"""Words for a plan (Tarif, abonnement), for usage (Nutzung, verbruik) and others that are not the glossary's."""


@pytest.mark.parametrize("language", sorted(LANGUAGES.keys() - {DEFAULT}))
def test_a_language_has_every_text(language: str) -> None:
    expected = texts()
    assert len(expected) > 100
    there = translations(language)
    assert sorted(expected - there.keys()) == []
    assert sorted(there.keys() - expected) == []
    catalog = load_catalog(language)
    for text, forms in there.items():
        assert all(set(HOLE.findall(form)) == set(HOLE.findall(text[0])) for form in forms), text
        assert "" not in forms, text
        if len(text) == 1:
            assert catalog.gettext(text[0]) == forms[0], text
        else:
            assert {catalog.ngettext(*text, n) for n in range(120)} == set(forms), text


def test_the_extraction_reads_each_marked_text() -> None:
    """It does not read the calls within f-strings, for example, so that a text there has no translation."""
    marked = {
        (call.args[0].value,)
        for room in ROOMS
        for module in (COLLECTOR / room).rglob("*.py")
        for call in ast.walk(ast.parse(module.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "N_"
        if isinstance(call.args[0], ast.Constant)
    }
    assert len(marked) > 100
    assert marked - texts() == set()


@pytest.mark.parametrize("language", sorted(OTHER_WORDS))
def test_translations_use_one_word_for_one_thing(language: str) -> None:
    forms = [HOLE.sub("", form) for translation in translations(language).values() for form in translation]
    assert [form for form in forms if re.search(OTHER_WORDS[language], form)] == []


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_empty_text_has_no_translation(language: str) -> None:
    assert load_catalog(language).gettext("") == "", "a catalog keeps its header under it"


def test_each_action_of_the_audit_log_has_words() -> None:
    assert sorted({*SEALED_ACTIONS, *CLEAR_ACTIONS} - AUDIT_ACTIONS.keys()) == []


def test_each_kind_of_invoice_has_words() -> None:
    assert INVOICE_KINDS.keys() == {START, CHANGE, PERIOD, THRESHOLD}


def test_business_report_page_uses_the_definitions_of_the_api() -> None:
    assert dict(business_report.DEFINITIONS) == words.DEFINITIONS
