"""The API's refusals in the reader's language, by their codes and with their figures; in English without words."""

import pytest

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.pages.alert_handling import format_return
from edgeproxy.collector.pages.api import ApiResponse
from edgeproxy.collector.pages.refilled_form import FieldRefusal
from edgeproxy.collector.pages.refusal_words import Reason, explain_error, explain_fault
from edgeproxy.collector.pages.site import ApiRefusedError
from edgeproxy.collector.problems.account_codes import ALERT_ACKNOWLEDGED
from edgeproxy.collector.problems.billing_codes import SELLING_STOPPED
from edgeproxy.collector.problems.coded_error import CodedError, FieldFault, Params
from edgeproxy.config import field_codes
from edgeproxy.config.field_codes import FieldCode

GERMAN = load_catalog("de").gettext


NEWER = FieldCode("of-a-newer-collector", "")


@pytest.mark.parametrize(
    ("code", "params", "words"),
    [
        (field_codes.MISSING, {}, "Füllen Sie dieses Feld aus."),
        (field_codes.NOT_PLAIN, {"most": 255}, "Schreiben Sie 1 bis 255 Zeichen in einer Zeile."),
        (field_codes.TOO_FAR, {"days": 90}, "Das ist mehr als 90 Tage entfernt."),
    ],
)
def test_a_code_of_a_field_has_a_sentence_in_the_language_of_its_reader(
    code: FieldCode, params: Params, words: str
) -> None:
    assert explain_fault(FieldFault("name", "in English", code, params), GERMAN) == FieldRefusal("name", words)


@pytest.mark.parametrize(
    ("code", "params"), [(NEWER, {"most": 3}), (field_codes.INVALID, {}), (field_codes.TOO_FAR, {"weeks": 9})]
)
def test_a_field_without_words_or_figures_shows_the_sentence_of_the_api(code: FieldCode, params: Params) -> None:
    fault = FieldFault("name", "in English", code, params)
    assert explain_fault(fault, GERMAN) == FieldRefusal("name", "Das ist so nicht möglich:", "in English")


def test_a_code_of_a_problem_has_a_sentence_with_the_names_in_it() -> None:
    error = CodedError(ALERT_ACKNOWLEDGED, "ann has acknowledged it, at 2027-01-01", params={"who": "ann"})
    assert explain_error(error, GERMAN) == Reason("ann hat ihn schon bestätigt.", is_english=False)


@pytest.mark.parametrize(("message", "end"), [("Bis 12 Uhr.", " Bis 12 Uhr."), ("", "")])
def test_the_message_of_operators_follows_the_sentence(message: str, end: str) -> None:
    error = CodedError(SELLING_STOPPED, "in English", params={"message": message})
    shown = f"Hier kann zurzeit nichts gekauft werden.{end}"
    assert explain_error(error, GERMAN) == Reason(shown, is_english=False)


def test_a_problem_of_a_newer_collector_shows_its_sentence() -> None:
    error = CodedError(ProblemCode("of-a-newer-collector", 409, "", ""), "the moon is full")
    assert explain_error(error, GERMAN) == Reason("the moon is full", is_english=True)


def test_the_error_of_a_page_has_the_code_and_the_fields_of_the_api() -> None:
    body = {
        "code": "of-a-newer-collector",
        "detail": "the moon is full",
        "errors": [
            {"field": "name", "code": "too-long", "detail": "is long", "params": {"most": 3}},
            {"field": "tier", "code": "of-a-newer-collector", "detail": "is new"},
        ],
    }
    error = ApiRefusedError(ApiResponse(418, body, fields={"Retry-After": "7"}))
    assert (error.status, error.code.name, error.why) == (418, "of-a-newer-collector", "the moon is full")
    assert error.faults == [
        FieldFault("name", "is long", field_codes.TOO_LONG, {"most": 3}),
        FieldFault("tier", "is new", FieldCode("of-a-newer-collector", "")),
    ]
    assert error.retry_after == "7"
    known = ApiRefusedError(ApiResponse(409, {"code": "alert-acknowledged", "detail": "", "params": {"who": "ann"}}))
    assert (known.code, known.params) == (ALERT_ACKNOWLEDGED, {"who": "ann"})


def test_untranslated_refusal_is_marked_english_and_escaped() -> None:
    assert FieldRefusal("a", "So nicht:", "<b>").html == 'So nicht: <span lang="en">&lt;b&gt;</span>'


def test_alert_form_returns_to_its_filtered_list() -> None:
    assert format_return("/console?hours=24&done=x&path=y", "/console", "acknowledged") == (
        "/console?hours=24&done=acknowledged&path=y"
    )
    assert format_return("//evil.example/console", "/console", "muted") == "/console?done=muted"
    assert format_return("https://evil.example/x", "/console", "muted") == "/console/alerts?done=muted"
