"""Mails of pages: HTML beside text, in the language of the reader, which loads nothing; and no field added to them."""

import re

import pytest

from edgeproxy.collector.mails.mail import create_message
from tests.support.mailbox import html_of, text_of
from tests.support.site import LINK, PagesStage
from tests.support.visitor import Visitor

WORDS = {"de": "Anmelden", "nl": "Inloggen", "en": "Sign in"}


@pytest.mark.parametrize("language", ["de", "nl", "en"])
def test_sign_in_mail_has_a_button_and_text_without_remote_content(stage: PagesStage, language: str) -> None:
    count = len(stage.mailbox.mails) + 1
    with Visitor(stage.site) as visitor:
        visitor.get(f"/sign-in?lang={language}")
        visitor.send("/sign-in", email="acme@example.com")
    mail = stage.mailbox.wait_for(count)
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"], "the best one last"
    html, (link,) = html_of(mail), LINK.findall(text_of(mail))
    assert f'lang="{language}"' in html
    assert re.findall(r'href="([^"]+)"', html) == [link]
    assert f">{WORDS[language]}</a>" in html
    assert not re.search(r"(?i)<img|<script|<link|src=|url\(", html)


@pytest.mark.parametrize("field", ["sender", "to", "subject"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_no_value_adds_a_field_to_a_mail(field: str, end: str) -> None:
    values = {"sender": "a@example.com", "to": "b@example.com", "subject": "Hello"}
    values[field] += f"{end}Bcc: c@example.com"
    with pytest.raises(ValueError, match=r"(?i)linefeed|newline|invalid|carriage"):
        create_message(values["sender"], values["to"], values["subject"], "text", "<p>html</p>")
