"""What the API refuses is said in the reader's language, with the same figures; what has no words is shown as it is."""

import pytest

from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.pages.alert_handling import format_return
from edgeproxy.collector.pages.refilled_form import FieldRefusal
from edgeproxy.collector.pages.refusal_words import explain_field, explain_why

GERMAN = load_catalog("de").gettext


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ("is missing, write tier: basic", "Füllen Sie dieses Feld aus."),
        ("cannot be used, 1 to 255 printable characters", "Schreiben Sie 1 bis 255 Zeichen in einer Zeile."),
        ("is more than 90 days away", "Das ist mehr als 90 Tage entfernt."),
        ("is something that nobody has words for", None),
    ],
)
def test_a_field_is_explained_in_the_language_of_its_reader(detail: str, words: str | None) -> None:
    assert explain_field(detail, GERMAN) == words


def test_why_nothing_was_done_is_explained_with_the_names_in_it() -> None:
    assert explain_why("ann has acknowledged it, at 2027-01-01", GERMAN) == "ann hat ihn schon bestätigt."
    assert explain_why("the gates are closed", GERMAN) is None


def test_what_has_no_words_is_shown_as_english_and_is_no_markup() -> None:
    assert FieldRefusal("a", "So nicht:", "<b>").html == 'So nicht: <span lang="en">&lt;b&gt;</span>'


def test_a_form_about_an_alert_leads_back_to_its_list_with_its_filters() -> None:
    assert format_return("/console?hours=24&done=x&path=y", "/console", "acknowledged") == (
        "/console?hours=24&done=acknowledged&path=y"
    )
    assert format_return("//evil.example/console", "/console", "muted") == "/console?done=muted"
    assert format_return("https://evil.example/x", "/console", "muted") == "/console/alerts?done=muted"
