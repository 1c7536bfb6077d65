"""The Atom feed (RFC 4287) of incidents and planned maintenance. Each of the last updates is an entry, latest first."""

from typing import NamedTuple
from xml.etree import ElementTree

from edgeproxy.collector.languages.invisible import replace_invisible
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.maintenance import Maintenance

ENTRIES_MAX = 50
ATOM = "http://www.w3.org/2005/Atom"
NEVER_UPDATED = "2026-01-01T00:00:00Z"
"""`updated` of a feed without entries. Atom requires the element."""


class FeedUpdate(NamedTuple):
    """An update with its number, counted from the oldest one of its incident or maintenance."""

    at: str
    about: str
    """The id of the incident or maintenance."""
    number: int
    title: str
    content: str


def render_feed(name: str, url: str, incidents: list[Incident], maintenance: list[Maintenance]) -> bytes:
    """Return the feed of the status page `name` whose site is at `url`."""
    ElementTree.register_namespace("", ATOM)
    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    updates = _list_updates(incidents, maintenance)
    _add(feed, "title", name)
    _add(feed, "id", f"{url}/status")
    _add(feed, "updated", updates[0].at if updates else NEVER_UPDATED)
    _add(feed, "link", href=f"{url}/status")
    _add(feed, "link", rel="self", href=f"{url}/status.atom")
    _add(_add(feed, "author"), "name", name)
    for update in updates[:ENTRIES_MAX]:
        entry = _add(feed, "entry")
        _add(entry, "title", update.title)
        _add(entry, "id", f"{url}/status#{update.about}-{update.number}")
        _add(entry, "updated", update.at)
        _add(entry, "link", href=f"{url}/status")
        _add(entry, "content", update.content, type="text")
    document: bytes = ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True)
    return document


def _list_updates(incidents: list[Incident], maintenance: list[Maintenance]) -> list[FeedUpdate]:
    """Return the updates, latest first."""
    updates = [
        FeedUpdate(
            update["at"],
            incident["id"],
            number,
            f"{incident['severity']} {incident['title']}: {update['state']}",
            update["message"],
        )
        for incident in incidents
        for number, update in enumerate(reversed(incident["updates"]))
    ]
    updates += [
        FeedUpdate(
            update["at"],
            one["id"],
            number,
            f"maintenance {one['title']}: {update['state']}",
            f"{one['begins_at']} to {one['ends_at']}\n\n{update['message']}",
        )
        for one in maintenance
        for number, update in enumerate(reversed(one["updates"]))
    ]
    return sorted(updates, key=lambda update: update.at, reverse=True)


def _add(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> ElementTree.Element:
    """Add an Atom element. Control characters and the like become U+FFFD, because XML forbids some of them."""
    element = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
    element.text = replace_invisible(text, lambda char: char if char == "\n" else "\ufffd") or None
    return element
