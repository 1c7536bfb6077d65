"""The formats of alerts: webhook bodies, messages for Slack, PagerDuty and Alertmanager, and mails. Pure."""

import hashlib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import NamedTuple

import orjson
import sqlalchemy as sa

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts import words
from edgeproxy.collector.alerts.kinds import Severity, find_policy
from edgeproxy.collector.alerts.labels import LABELS, OPERATOR_LABELS
from edgeproxy.collector.database.unreadable_rows import parse_object, parse_word
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.invisible import format_line
from edgeproxy.collector.languages.marks import N_
from edgeproxy.collector.languages.reader import Reader
from edgeproxy.collector.mails.letter import Letter, MailSection, render_html, render_text
from edgeproxy.collector.mails.mail import create_message

SLACK_FIELDS_MAX = 10
"""Details in a Slack message. A section can have no more."""
SLACK_CHARACTERS_MAX = 2000
"""Most characters of a field in a Slack section."""
PAGERDUTY_KEY_CHARACTERS_MAX = 255
"""Most characters of PagerDuty's `dedup_key`."""
SEVERITY_LABELS: dict[Severity, str] = {"page": "critical", "warn": "warning", "info": "info"}
"""The severities in terms of PagerDuty and of Prometheus rules."""
FIRING_SECONDS = 86400
"""Seconds before an alert ends in Alertmanager. Such an alert is never resolved explicitly."""
SUBJECTS: dict[Severity, str] = {"page": "[PAGE] ", "warn": "[warning] ", "info": ""}
NO_DOMAIN = "edgeproxy.invalid"


class AlertMessage(NamedTuple):
    """An alert for sending. `at` is in Unix milliseconds."""

    id: int
    key: str
    kind: str
    severity: Severity
    customer: str | None
    title: str
    details: JsonObject
    at: int

    @property
    def name(self) -> str:
        """The id of the message. It is equal in all attempts and on all channels."""
        return f"alert_{self.id}_{hashlib.sha256(self.key.encode()).hexdigest()[:16]}"

    @property
    def moment(self) -> str:
        """The time of the event, as RFC 3339."""
        return format_timestamp(self.at)


class ServiceSite(NamedTuple):
    """The service that sends mails: its name, and the URLs of its pages for operators and customers (empty: none)."""

    name: str
    console: str = ""
    portal: str = ""


def parse_message(row: sa.Row[tuple[object, ...]]) -> AlertMessage:
    """Return the message of a row of `alerts`; raises ValueError for a severity that is none."""
    parse_word(row.severity, SEVERITY_LABELS)
    columns = (row.id, row.key, row.kind, row.severity, row.customer, row.title)
    return AlertMessage(*columns, parse_object(row.details), row.at)


def format_webhook(message: AlertMessage) -> bytes:
    """Return the body of a webhook: `type`, `timestamp` and `data`, as Standard Webhooks recommend."""
    data = {
        "id": message.id,
        "key": message.key,
        "severity": message.severity,
        "customer": message.customer,
        "title": message.title,
        "details": message.details,
    }
    return orjson.dumps({"type": f"alert.{message.kind}", "timestamp": message.moment, "data": data})


def format_runbook(kind: str, runbooks: str) -> str | None:
    """Return the URL of a kind's runbook, below the URL `runbooks`, or None if another version defines the kind."""
    policy = find_policy(kind)
    return None if policy is None else f"{runbooks}{policy.runbook}"


def format_slack(message: AlertMessage, runbooks: str = "") -> bytes:
    """Return a message for Slack's incoming webhook: the title, the details as a list, and a link to the runbook."""
    title = f"{SUBJECTS[message.severity]}{message.title}"
    fields = [
        {"type": "mrkdwn", "text": f"*{_escape(name)}*\n{_escape(value)}"[:SLACK_CHARACTERS_MAX]}
        for name, value in list_details(message)[:SLACK_FIELDS_MAX]
    ]
    blocks: list[JsonObject] = [{"type": "section", "text": {"type": "mrkdwn", "text": f"*{_escape(title)}*"}}]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    context = [message.kind, message.moment, message.key, format_runbook(message.kind, runbooks)]
    text = _escape(" · ".join(filter(None, context)))
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]})
    return orjson.dumps({"text": _escape(title), "blocks": blocks})


def format_pagerduty(message: AlertMessage, routing_key: str, runbooks: str = "") -> bytes:
    """Return a `trigger` for PagerDuty's Events API v2. `dedup_key` merges repeated messages into one incident."""
    key = message.key
    runbook = format_runbook(message.kind, runbooks) if runbooks else None
    return orjson.dumps(
        {
            **({} if runbook is None else {"links": [{"href": runbook, "text": "Runbook"}]}),
            "routing_key": routing_key,
            "event_action": "trigger",
            "dedup_key": key if len(key) <= PAGERDUTY_KEY_CHARACTERS_MAX else message.name,
            "payload": {
                "summary": message.title,
                "source": message.customer or "edgeproxy",
                "severity": SEVERITY_LABELS[message.severity],
                "timestamp": message.moment,
                "component": "edgeproxy",
                "class": message.kind,
                "custom_details": message.details,
            },
        }
    )


def format_alertmanager(message: AlertMessage, now: float, runbooks: str = "") -> bytes:
    """Return the body of Alertmanager's `POST /api/v2/alerts`: one alert that fires for FIRING_SECONDS from `now`.

    It has the labels of the Prometheus rules. `key` is also a label, so that a repeated attempt updates the alert.
    """
    policy = find_policy(message.kind)
    labels = {
        "alertname": message.kind,
        "severity": SEVERITY_LABELS[message.severity],
        "team": "billing" if policy is not None and "billing" in policy.runbook else "platform",
        "source": "collector",
        "key": message.key,
        "customer": message.customer or "",
    }
    annotations = {
        "summary": message.title,
        "description": "\n".join(f"{name}: {value}" for name, value in list_details(message)),
        "runbook_url": format_runbook(message.kind, runbooks) or "",
    }
    times = {"startsAt": message.moment, "endsAt": format_timestamp(round((now + FIRING_SECONDS) * 1000))}
    return orjson.dumps([{"labels": labels, "annotations": annotations, **times}])


def format_mail(
    message: AlertMessage,
    sender: str,
    recipients: tuple[str, ...],
    reader: Reader,
    site: ServiceSite,
    runbooks: str = "",
) -> EmailMessage:
    """Return a mail to operators that tells them what to do."""
    say = load_catalog(reader.language).gettext
    policy = find_policy(message.kind)
    facts = [(say(OPERATOR_LABELS.get(name, name)), text) for name, text in _list_facts(message, reader)]
    paragraphs = []
    if policy is not None:
        more = format_runbook(message.kind, runbooks)
        paragraphs = [
            f"{say(N_('Kind'))}: {message.kind}, {say(policy.summary)}",
            f"{say(N_('What to do'))}: {say(policy.action)}",
            f"{say(N_('More'))}: {more}",
        ]
    link = site.console and f"{site.console}/console/alerts"
    title = words.describe(reader, message.kind, message.customer, message.details)
    letter = _build_letter(message, title, reader, site, facts, paragraphs)._replace(
        links=[link] if link else [],
        button=say(words.ALL_ALERTS),
        foot=[f"{say(words.ALERT)} {message.id}, {format_line(message.key)}"],
    )
    return _format_mail(message, sender, recipients, letter, reader, SUBJECTS[message.severity])


def format_customer_mail(
    message: AlertMessage, sender: str, recipient: str, reader: Reader, site: ServiceSite
) -> EmailMessage:
    """Return a mail to the customer concerned, in the second person.

    It has the facts with a label for customers, and a button if the customer can act.
    """
    say = load_catalog(reader.language).gettext
    facts = [(say(LABELS[name]), text) for name, text in _list_facts(message, reader) if name in LABELS]
    button = words.find_button(message.kind, message.details)
    link, text = str(message.details.get(button.detail) or ""), button.text
    if not link.startswith(("https://", "http://")) or link != format_line(link):
        link, text = site.portal and f"{site.portal}{button.page}", button.page_text
    title = words.describe_own(reader, message.kind, message.details)
    action = words.describe_action(reader, message.kind, message.details)
    letter = _build_letter(message, title, reader, site, facts, [] if action is None else [action])._replace(
        links=[link] if link else [], button=say(text), foot=[f"{say(words.ALERT)} {message.id}"]
    )
    return _format_mail(message, sender, (recipient,), letter, reader, "")


def _list_facts(message: AlertMessage, reader: Reader) -> list[tuple[str, str]]:
    """Return the details that are not empty with their labels, in the reader's formats."""
    there = {name: value for name, value in message.details.items() if value not in (None, "")}
    if "decline_reason" in there:  # In the reader's language, in place of Stripe's English sentence.
        there.pop("why", None)
    details: dict[str, JsonValue] = {format_line(name): value for name, value in there.items()}
    return [(name, words.format_detail(reader, name, details)) for name in details]


def _build_letter(
    message: AlertMessage,
    title: str | None,
    reader: Reader,
    site: ServiceSite,
    facts: list[tuple[str, str]],
    paragraphs: list[str],
) -> Letter:
    """Return the letter of an alert without button and foot. The default title is the alert's."""
    say = load_catalog(reader.language).gettext
    about = [(say(N_("When")), format_line(reader.moment(message.at / 1000)))]
    if message.customer is not None:
        about.append((say(N_("Customer")), message.customer))
    subject = title or format_line(message.title)
    return Letter(site.name, subject, [MailSection(facts=[*about, *facts]), MailSection(paragraphs=paragraphs)])


def _format_mail(
    message: AlertMessage, sender: str, recipients: tuple[str, ...], letter: Letter, reader: Reader, prefix: str
) -> EmailMessage:
    """Return a letter as a mail with text and HTML. Its Message-ID is equal in all attempts."""
    if letter.links:
        letter = letter._replace(sections=[*letter.sections, MailSection(paragraphs=letter.links)])
    mail = create_message(
        sender, ", ".join(recipients), f"{prefix}{letter.subject}", render_text(letter), render_html(letter, reader)
    )
    mail.replace_header("Date", format_datetime(datetime.fromtimestamp(message.at / 1000, UTC)))
    mail.replace_header("Message-ID", f"<{message.name}@{sender.rpartition('@')[2] or NO_DOMAIN}>")
    return mail


def list_details(message: AlertMessage) -> list[tuple[str, str]]:
    """Return the details, each on one line, so that untrusted text cannot look like a line of ours."""
    return [
        (format_line(name), format_line(value if isinstance(value, str) else orjson.dumps(value).decode()))
        for name, value in message.details.items()
    ]


def _escape(text: str) -> str:
    """Escape characters that Slack reads as mentions or links."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
