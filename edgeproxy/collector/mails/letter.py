"""The content of a mail, as text and as HTML: one column, nothing loaded, the direction and language of its reader."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeproxy.collector.languages.invisible import escape_invisible
from edgeproxy.collector.languages.reader import Reader


class MailSection(NamedTuple):
    """A part of a letter: a heading, a line about it, facts with their names, and paragraphs."""

    heading: str = ""
    note: str = ""
    facts: Sequence[tuple[str, str]] = ()
    paragraphs: Sequence[str] = ()


class Letter(NamedTuple):
    """The content of a mail."""

    name: str
    """The service at its head."""
    subject: str
    sections: Sequence[MailSection]
    links: Sequence[str] = ()
    """The addresses of its buttons. A paragraph that equals one becomes a button."""
    button: str = ""
    foot: Sequence[str] = ()
    """The small lines at its end."""
    foot_links: Sequence[tuple[str, str]] = ()
    """The text and address of each small link at its end."""


def render_html(letter: Letter, reader: Reader) -> str:
    """Return a letter as HTML."""
    return _create_environment().get_template("mail.html").render(letter=letter, reader=reader)


def render_links(name: str, subject: str, body: str, links: Sequence[str], button: str, reader: Reader) -> str:
    """Return the HTML of a mail whose text is `body`: a paragraph that is one of the links is a button."""
    section = MailSection(paragraphs=[" ".join(part.split()) for part in body.split("\n\n") if part.strip()])
    return render_html(Letter(name, subject, [section], links, button), reader)


def render_text(letter: Letter) -> str:
    """Return a letter as text: each fact and each line of the foot is a line of its own."""
    blocks = [letter.subject]
    for section in letter.sections:
        facts = [f"{name}: {value}" for name, value in section.facts]
        paragraphs = [
            f"{letter.button}:\n{paragraph}" if paragraph in letter.links else paragraph
            for paragraph in section.paragraphs
        ]
        blocks += ["\n".join(filter(None, (section.heading, section.note))), "\n".join(facts), *paragraphs]
    blocks.append("\n".join([*letter.foot, *(f"{text}: {address}" for text, address in letter.foot_links)]))
    return "\n\n".join(filter(None, blocks)) + "\n"


@cache
def _create_environment() -> Environment:
    templates = Environment(
        loader=PackageLoader("edgeproxy.collector.mails"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters["shown"] = escape_invisible
    return templates
