"""Alerts in the words of their readers: three languages, numbers and money as they write them, and a button to act."""

import ast
import re
from pathlib import Path

import pytest

import edgeproxy.collector
from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.alerts import words
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, AlertKind
from edgeproxy.collector.alerts.labels import OPERATOR_LABELS
from edgeproxy.collector.alerts.message import AlertMessage, ServiceSite, format_customer_mail, format_mail
from edgeproxy.collector.billing.invoices.declines import DeclineReason
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.reader import create_reader
from tests.support.mailbox import html_of, text_of

SITE = ServiceSite("Example API", "https://console.test", "https://portal.test")
OF_KEY = {"key": "k1", "start": "edge_v1_ab", "name": None, "rotate_by": "2026-11-28", "rotate_at": "https://p.test/k"}
AT = "2026-11-28T10:00:00Z"
SPENT = {"spent_cents": 123456, "currency": "usd"}
OF_HOUR = ({**SPENT, "hour": AT, "times": 12}, {**SPENT, "hour": AT, "usual_cents": 100}, {**SPENT, "hour": AT})
"""Details of an hour's spending: the current form, the old form, and one without a usual amount."""
UNUSUAL = {
    "meter": "calls",
    "at": "2026-11-22T10:00:00Z",
    "kind": "volume",
    "value": 5000,
    "expected": 12,
    "score": 9.1,
}
DECLINED = {"invoice": "i1", "amount": "1234.50 USD", "why": "insufficient funds", "pay": "https://pay.test/i1"}
OF_INVOICE = {"invoice": "i1", "number": "EX-0007", "amount": "1234.50 USD"}
QUOTA = {"threshold": 80, "quota": "calls", "limit": 1000, "used": 800, "cap": "hard"}
DETAILS: dict[AlertKind, tuple[JsonObject, ...]] = {
    AlertKind.QUOTA_REACHED: (
        QUOTA,
        {**QUOTA, "meter": "api_calls", "per": None},
        {**QUOTA, "meter": "api_calls", "per": "day"},
        {**QUOTA, "meter": "api_calls", "per": "month"},
    ),
    AlertKind.SPEND_REACHED: ({"amount_cents": 5000, "period_start": AT, **SPENT},),
    AlertKind.TRIAL_WILL_END: ({"plan": "pro@3", "trial_ends_at": AT},),
    AlertKind.REQUEST_CAP_EXCEEDED: ({"route": "chat", "above": 7, "edge": "e1"},),
    AlertKind.DIMENSION_LIMIT_EXCEEDED: ({"meter": "m", "dimension": "model", "month": "2026-11", "values": 1000},),
    AlertKind.USAGE_ANOMALY: (UNUSUAL,),
    AlertKind.CUSTOMER_PAUSED: (UNUSUAL, *OF_HOUR),
    AlertKind.KEY_ROTATION_DUE: (OF_KEY,),
    AlertKind.KEY_ROTATION_OVERDUE: ({**OF_KEY, "days_overdue": 3},),
    AlertKind.KEY_ENDS_SOON: (
        {"start": "edge_v1_ab", "new_start": "edge_v1_cd", "ends_on": "2026-12-05"},
        {"start": "edge_v1_ab", "ends_on": "2026-12-05"},
    ),
    AlertKind.KEY_BUDGET_REACHED: ({"start": "edge_v1_ab", "threshold": 100, "amount": 5000, "currency": "usd"},),
    AlertKind.SPEND_SPIKE: OF_HOUR,
    AlertKind.PAYMENT_FAILED: (
        {**DECLINED, "next_retry": AT},
        {**DECLINED, "next_retry": None, "why": ""},
        {**DECLINED, "total": 123450, "next_payment_attempt": AT},
    ),
    AlertKind.INVOICE_UNPAID: ({},),
    AlertKind.PRICE_CHANGE: (
        {"plan": "Pro", "at": AT, "fee_before": 100, "fee": 200, "currency": "usd", "page": "https://p.test/plan"},
        {"at": AT},
    ),
    AlertKind.WEBHOOK_DISABLED: ({"endpoint": "w1", "host": "hooks.test", "why": "it answers 410"},),
    AlertKind.INVOICE_ISSUED: (
        {**OF_INVOICE, "due_at": AT, "pay": "https://pay.test/i1", "pdf": "https://pay.test/i1.pdf"},
        OF_INVOICE,
    ),
    AlertKind.PAYMENT_RECEIVED: (
        {**OF_INVOICE, "receipt": "https://pay.test/i1", "pdf": "https://pay.test/i1.pdf"},
        {"purchase": "cs_1", "amount": "11.90 USD", "credits": 10_000_000},
    ),
    AlertKind.CREDITS_LOW: ({"left": "2.00 EUR", "granted": "10.00 EUR"},),
    AlertKind.CREDITS_SPENT: ({},),
    AlertKind.DELETION_REQUESTED: (
        {"by": "contact:ann@b.test", "erased_on": "2026-12-28T10:00:00Z"},
        {"by": "operator"},
    ),
    AlertKind.KEY_CREATED: ({"start": "edge_v1_ab", "by": "operator"}, {"name": "server", "by": "token"}),
    AlertKind.KEY_ROTATED: (
        {"start": "edge_v1_ab", "new_start": "edge_v1_cd", "works_until": AT, "by": "contact:ann@b.test"},
        {"by": "operator"},
    ),
    AlertKind.CONTACT_ADDED: ({"by": "operator"},),
    AlertKind.KEY_REVOKED: ({"start": "edge_v1_ab", "by": "operator", "why": "leaked"}, {"by": "operator"}),
}
"""Details that the product writes for each kind of alert for customers."""


HELD_INVOICE = {"invoice": "i1", "of": "acme", "period": "2026-11-01", "why": "the amounts differ"}
DISPUTED = {"dispute": "d1", "of": "acme", "amount": "12.34 USD", "reason": "fraudulent", "state": "needs_response"}
FAILED: JsonObject = {"why": "it is gone"}
OPERATOR_DETAILS: dict[AlertKind, tuple[JsonObject, ...]] = {
    AlertKind.REQUEST_CAP_EXCEEDED: ({"route": "chat", "above": 7, "edge": "e1"}, {"customers": 70, "edge": "e1"}),
    AlertKind.BATCHES_LOST: ({"token": "svc", "edge": "e1", "seq": 4, "why": "lost", "to_seq": 7, "batches": 1},),
    AlertKind.BATCHES_QUARANTINED: ({"token": "svc", "edge": "e1", "seq": 4, "why": "version", "edges": ["e1"]},),
    AlertKind.TOKEN_EDGE_LIMIT_REACHED: ({"token": "svc", "edge": "e1", "seq": 4, "why": "many"},),
    AlertKind.EVENTS_REJECTED: ({"token": "svc", "error": "json", "letter": "l1"},),
    AlertKind.CUSTOMERS_UNKNOWN: ({"names": ["ghost", "spook"], "more": 3},),
    AlertKind.REQUESTS_DENIED: ({"denials": 700, "worst": [{"actor": "edge", "count": 600}]},),
    AlertKind.CERTIFICATE_EXPIRING: ({"file": "tls.pem", "expires": AT},),
    AlertKind.PRIVACY_REQUEST_DUE: ({"request": "r1", "kind": "access", "law": "GDPR", "due_at": AT},),
    AlertKind.ROW_UNREADABLE: ({"table": "invoices", "key": "i1", "error": "JSON"},),
    AlertKind.ESTIMATES_HIGH: ({"customer": "acme", "meter": "tokens", "at": AT, "estimated": 900, "units": 1000},),
    AlertKind.CUSTOMER_PAUSE_FAILED: ({**UNUSUAL, "of": "acme", "why": "it is in a file"},),
    AlertKind.PRICE_CHANGE_DECIDED: (
        {"change": "c1", "state": "withdrawn", "at": AT, "moves": ["pro@1 → pro@2"], "by": "operator:mara"},
    ),
    AlertKind.SUBSCRIPTION_PERIOD_FAILED: ({**FAILED, "subscription": "s1"},),
    AlertKind.IMPORTED_SUBSCRIPTION_FAILED: ({**FAILED, "subscription": "sub_1"},),
    AlertKind.INVOICE_HELD: (HELD_INVOICE,),
    AlertKind.INVOICE_REPLACED: ({**HELD_INVOICE, "stripe_id": "in_1", "status": "deleted"},),
    AlertKind.INVOICE_FAILED: (HELD_INVOICE,),
    AlertKind.INVOICE_PAID_TWICE: ({**HELD_INVOICE, "stripe_id": "in_1"},),
    AlertKind.INVOICE_DRAFT_MISSING: (HELD_INVOICE,),
    AlertKind.CREDIT_NOTE_FAILED: ({**FAILED, "credit_note": "n1", "invoice": "i1"},),
    AlertKind.PLAN_STOPPED: ({"subscription": "s1", "of": "acme", "after": "pause", "since": "2026-11-01"},),
    AlertKind.DECISION_FAILED: ({**HELD_INVOICE, "decided": "void"},),
    AlertKind.REFUND_FAILED: ({"refund": "f1", "purchase": "cs_1", "of": "acme", "amount": "$12.34"},),
    AlertKind.PAYMENT_DISPUTED: ({**DISPUTED, "answer_by": AT}, DISPUTED),
    AlertKind.DISPUTE_CLOSED: ({**DISPUTED, "state": "lost"},),
    AlertKind.CHARGING_STOPPED: ({"who": "operator:mara", "why": "wrong prices"},),
    AlertKind.USAGE_EXPORT_FAILED: (
        {**FAILED, "stops": False, "customer": "acme", "meter": "tokens", "slice": 7, "answer": "400"},
    ),
    AlertKind.USAGE_EXPORT_STOPPED: (FAILED,),
    AlertKind.METER_EVENTS_REJECTED: ({**FAILED, "event": "evt_1", "rejected": ["u1"]},),
    AlertKind.WEBHOOK_EVENT_FAILED: (
        {**FAILED, "event": "evt_1"},
        {**FAILED, "unread": "its list of events"},
        {"customer": "acme", "since": AT, "counts_as_unpaid_at": AT},
    ),
    AlertKind.WEBHOOK_MODE_MISMATCH: ({"event": "evt_1", "mode": "live", "type": "invoice.paid"},),
    AlertKind.CATALOG_PRICE_MISSING: ({"price": "pro fee", "missing": ["pro fee"]},),
    AlertKind.RECONCILIATION_MISMATCH: (
        {"rows": [{"customer": "acme"}], "books": "B", "part": 0.0123, "different": 7},
    ),
}
"""Details that the product writes for each kind of alert for operators alone."""
CASES = [
    *((kind, "acme", details) for kind, variants in DETAILS.items() for details in variants),
    *((kind, None, details) for kind, variants in OPERATOR_DETAILS.items() for details in variants),
]
"""Kinds with the customer concerned and details."""
KEY_KINDS = (AlertKind.KEY_CREATED, AlertKind.KEY_ROTATED, AlertKind.KEY_REVOKED)
PAGES = {
    **dict.fromkeys(
        (AlertKind.INVOICE_ISSUED, AlertKind.INVOICE_UNPAID, AlertKind.PAYMENT_FAILED), "/account/invoices"
    ),
    **dict.fromkeys((AlertKind.PAYMENT_RECEIVED, AlertKind.CREDITS_LOW, AlertKind.CREDITS_SPENT), "/account/credits"),
    AlertKind.DELETION_REQUESTED: "/account/data",
    **dict.fromkeys((*KEY_KINDS, AlertKind.KEY_BUDGET_REACHED, AlertKind.KEY_ENDS_SOON), "/account/keys"),
    **dict.fromkeys((AlertKind.KEY_ROTATION_DUE, AlertKind.KEY_ROTATION_OVERDUE), "/account/keys"),
    **dict.fromkeys((AlertKind.PRICE_CHANGE, AlertKind.TRIAL_WILL_END), "/account/plan"),
    **dict.fromkeys((AlertKind.USAGE_ANOMALY, AlertKind.CUSTOMER_PAUSED, AlertKind.SPEND_SPIKE), "/account/usage"),
    AlertKind.QUOTA_REACHED: "/account/limits",
    AlertKind.SPEND_REACHED: "/account/month",
    AlertKind.WEBHOOK_DISABLED: "/account/webhooks",
    AlertKind.CONTACT_ADDED: "/account/team",
}
"""The page that a mail of this kind links to if there is nothing to pay."""


def make(kind: AlertKind, details: JsonObject) -> AlertMessage:
    return AlertMessage(7, "the-key", kind, "warn", "acme", "the title in English", details, 1_790_000_000_123)


def test_each_alert_kind_has_sentences_for_its_details() -> None:
    assert DETAILS.keys() == {kind for kind, policy in ALERT_POLICIES.items() if policy.to_customer}
    assert words.SENTENCES.keys() == set(AlertKind)
    taken = {(kind, words.find_sentence(kind, customer, details)) for kind, customer, details in CASES}
    assert taken == {(kind, sentence) for kind, sentences in words.SENTENCES.items() for sentence in sentences}


@pytest.mark.parametrize("language", ["de", "nl"])
def test_no_english_title_or_label_is_left_in_mails_of_operators(language: str) -> None:
    reader, say = create_reader(language), load_catalog(language).gettext
    foreign = {english for english in OPERATOR_LABELS.values() if say(english) != english}
    for kind, customer, details in CASES:
        alert = make(kind, details)._replace(customer=customer)
        mail = format_mail(alert, "a@example.com", ("b@example.com",), reader, SITE)
        assert "the title in English" not in mail["Subject"], kind
        assert words.describe(create_reader("en"), kind, customer, details) not in mail["Subject"], kind
        assert details.keys() <= OPERATOR_LABELS.keys(), kind
        labels = {line.partition(":")[0].strip() for line in text_of(mail).splitlines()}
        assert not labels & foreign, kind


def test_each_alert_is_raised_with_the_details_of_a_sentence() -> None:
    calls = [
        {word.arg: word.value for word in node.keywords}
        for file in Path(edgeproxy.collector.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Alert"
    ]
    checked = set()
    for call in calls:
        kind, details = ast.unparse(call["kind"]).removeprefix("AlertKind."), call.get("details", ast.Dict([], []))
        names = (
            {key.value for key in details.keys if isinstance(key, ast.Constant)}
            if isinstance(details, ast.Dict)
            else set()
        )
        if kind in AlertKind.__members__ and isinstance(details, ast.Dict) and None not in details.keys:
            holes = [set(words.HOLE.findall(text)) - {"customer"} for text in words.SENTENCES[AlertKind[kind]]]
            assert any(hole <= names for hole in holes), (kind, names)
            checked.add(kind)
    assert len(checked) > 25, "others gather their details"


def test_a_kind_for_operators_has_a_sentence_in_their_language() -> None:
    german = create_reader("de")
    text = words.describe(german, AlertKind.DISPUTE_CLOSED, None, {**DISPUTED, "state": "lost"})
    assert text == "Angefochtene Zahlung von acme über 12,34\xa0$: verloren"
    text = words.describe(german, AlertKind.RECONCILIATION_MISMATCH, None, {"books": "B", "part": 0.0123})
    assert text == "Zwei Bücher weichen um 1,2300\xa0% voneinander ab: Der Postausgang und die Summen von Stripe"
    text = words.describe(german, AlertKind.EVENTS_REJECTED, None, {"token": "svc", "error": "json", "letter": "l1"})
    assert text == "Ereignisse des Tokens svc wurden abgelehnt: Sie zählen bisher nicht"
    expiring: JsonObject = {"file": "tls.pem", "expires": AT}
    text = words.describe(german, AlertKind.CERTIFICATE_EXPIRING, None, expiring)
    assert text is not None
    assert "tls.pem des Collectors gilt bis 28.11.2026" in text


def test_a_customer_is_told_of_itself_in_the_second_person() -> None:
    reader = create_reader("en")
    for kind, details in ((kind, details) for kind, variants in DETAILS.items() for details in variants):
        own = words.describe_own(reader, kind, {**details, "customer": "acme"})
        assert own is not None, kind
        assert "acme" not in own
    of_month: JsonObject = {"threshold": 80, "quota": "api_calls-month", "meter": "api_calls", "per": "month"}
    told = words.describe_own(reader, "quota_reached", of_month)
    assert told == "You have used 80% of the API calls that are included in this month"
    told = words.describe_own(reader, "quota_reached", {**of_month, "per": None})
    assert told == "You have used 80% of what is included of API calls"
    assert words.describe_own(reader, "batches_lost", {}) is None


@pytest.mark.parametrize("language", ["en", "de", "nl"])
def test_customer_alert_mail_is_translated_and_links_to_the_action(language: str) -> None:
    reader, subjects = create_reader(language), []
    for kind, details in ((kind, details) for kind, variants in DETAILS.items() for details in variants):
        mail = format_customer_mail(make(kind, details), "a@example.com", "b@example.com", reader, SITE)
        text, html = text_of(mail), html_of(mail)
        subjects.append(mail["Subject"])
        assert f'<html lang="{language}"' in html
        buttons = [details[name] for name in ("pay", "receipt", "rotate_at", "page") if name in details]
        page = PAGES.get(kind, "/account/alerts")
        assert re.findall(r'href="([^"]+)"', html) == (buttons or [f"https://portal.test{page}"])
        assert str((buttons or [page])[0]) in text
        assert not re.search(r"(?i)<img|<script|<link|src=|url\(|\\u|\\x", html)
        assert not re.search(r": ?\n(?!\S*://)|…\.", text), "a fact without a value, or two signs at an end"
        assert not re.search(r"pro@3|\bedge:|\babove:|\bscore:", text), "insides of the service are not in it"
    assert "the title in English" not in subjects
    expected = {
        "en": "A payment of $1,234.50 was declined, and is not tried again",
        "de": "Eine Zahlung über 1.234,50\xa0$ wurde abgelehnt und wird nicht noch einmal versucht",
        "nl": "Een betaling van US$\xa01.234,50 is geweigerd en wordt niet opnieuw geprobeerd",
    }
    assert expected[language] in subjects
    assert not [subject for subject in subjects if "acme" in subject], "customers are told of themselves as you"


def test_customer_mail_states_amount_due_payment_link_and_key_change() -> None:
    texts = {
        kind: text_of(format_customer_mail(make(kind, DETAILS[kind][0]), "a@b.test", "c@b.test", reader, SITE))
        for reader in (create_reader("de"),)
        for kind in (AlertKind.INVOICE_ISSUED, *KEY_KINDS)
    }
    assert "Wenn das niemand aus Ihrem Team war, widerrufen Sie den Schlüssel sofort." in texts[AlertKind.KEY_CREATED]
    invoice, created, rotated, revoked = (" ".join(text.split()) for text in texts.values())
    assert invoice.startswith("Ihre Rechnung EX-0007 über 1.234,50 $ ist am 28.11.2026 fällig")
    assert "PDF: https://pay.test/i1.pdf" in invoice
    assert "Rechnung bezahlen: https://pay.test/i1" in invoice
    assert "Durch: den Betreiber" in created
    assert "Neuer Schlüssel: edge_v1_cd" in rotated
    assert "Durch: ann@b.test" in rotated
    assert "Grund: Der Schlüssel wurde öffentlich gefunden." in revoked


@pytest.mark.parametrize("language", ["en", "de", "nl"])
def test_declined_payment_states_its_reason_in_the_language_of_the_reader(language: str) -> None:
    assert words.DECLINE_REASONS.keys() == set(DeclineReason)
    reader, reasons = create_reader(language), set()
    for reason in DeclineReason:
        details: JsonObject = {**DECLINED, "next_retry": AT, "why": "Stripe's sentence.", "decline_reason": reason}
        alert = make(AlertKind.PAYMENT_FAILED, details)
        own = words.format_detail(reader, "decline_reason", details)
        reasons.add(own)
        for mail in (
            format_customer_mail(alert, "a@b.test", "c@b.test", reader, SITE),
            format_mail(alert, "a@b.test", ("c@b.test",), reader, SITE),
        ):
            text = " ".join(text_of(mail).split())
            assert f"{'Reden' if language == 'nl' else 'Reason' if language == 'en' else 'Grund'}: {own}" in text
            assert "Stripe's sentence." not in text
    assert len(reasons) == len(DeclineReason)
    assert language == "en" or not reasons & set(words.DECLINE_REASONS.values())


def test_alert_without_matching_sentence_uses_its_title() -> None:
    reader = create_reader("de")
    for kind, details in (("quota_reached", {}), ("kind_of_tomorrow", {"threshold": 1}), ("batches_lost", {})):
        assert words.describe(reader, kind, "acme", details) is None
    odd: JsonObject = {"threshold": "x\ny", "quota": ["a"], "amount": "12", "at": "soon", "currency": 7, "fee": "?"}
    assert words.describe(reader, "quota_reached", "a", odd) == 'a hat x y der enthaltenen Menge genutzt (["a"])'
    assert [words.format_detail(reader, name, odd) for name in ("amount", "at", "fee")] == ["12", "soon", "?"]
    mail = format_customer_mail(make(AlertKind.QUOTA_REACHED, {}), "a@example.com", "b@example.com", reader, SITE)
    assert mail["Subject"] == "the title in English"


def test_alert_mail_escapes_html_of_its_details() -> None:
    evil = "</td><img src=//evil.test> \u202e"
    alert = make(AlertKind.PAYMENT_FAILED, {**DECLINED, "why": evil, "amount": evil, "pay": "javascript:alert(1)"})
    for mail in (
        format_customer_mail(alert, "a@example.com", "b@example.com", create_reader("en"), SITE),
        format_mail(alert, "a@example.com", ("b@example.com",), create_reader("en"), SITE),
    ):
        html = html_of(mail)
        assert "evil.test" in html
        assert "<img" not in html
        assert "\u202e" not in html + text_of(mail)
        assert all(link.startswith(SITE[1:]) for link in re.findall(r'href="([^"]+)"', html))


def test_operator_mail_translates_the_remedy_into_the_deployment_language() -> None:
    alert = make(AlertKind.BATCHES_LOST, {"batches": 3})._replace(customer=None)
    mail = format_mail(alert, "a@example.com", ("b@example.com",), create_reader("nl"), SITE)
    assert mail["Subject"] == "[warning] the title in English", "filters of those on call know it"
    for part in (text_of(mail), html_of(mail)):
        assert "Wat te doen" in part
        assert "What to do" not in part
        assert "https://console.test/console/alerts" in part
