"""The Atom feed (RFC 4287) of incidents: an entry for each update, the latest first."""

from typing import NamedTuple
from xml.etree import ElementTree

from edgeproxy.collector.pages.incidents import Incident, IncidentUpdateEntry

ENTRIES_MAX = 50
ATOM = "http://www.w3.org/2005/Atom"
NEVER_UPDATED = "2026-01-01T00:00:00Z"
"""`updated`, which Atom requires, of a feed without entries."""


class FeedUpdate(NamedTuple):
    """An update, its incident, and its number there, counted from the oldest."""

    update: IncidentUpdateEntry
    incident: Incident
    number: int


def render_feed(name: str, url: str, incidents: list[Incident]) -> bytes:
    """Return the feed of a status page with this name, whose site is at `url`."""
    ElementTree.register_namespace("", ATOM)
    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    updates = [
        FeedUpdate(update, incident, number)
        for incident in incidents
        for number, update in enumerate(reversed(incident["updates"]))
    ]
    updates.sort(key=lambda feed_update: feed_update.update["at"], reverse=True)
    _add(feed, "title", name)
    _add(feed, "id", f"{url}/status")
    _add(feed, "updated", updates[0].update["at"] if updates else NEVER_UPDATED)
    _add(feed, "link", href=f"{url}/status")
    _add(feed, "link", rel="self", href=f"{url}/status.atom")
    _add(_add(feed, "author"), "name", name)
    for update, incident, number in updates[:ENTRIES_MAX]:
        entry = _add(feed, "entry")
        _add(entry, "title", f"{incident['severity']} {incident['title']}: {update['state']}")
        _add(entry, "id", f"{url}/status#{incident['id']}-{number}")
        _add(entry, "updated", update["at"])
        _add(entry, "link", href=f"{url}/status")
        _add(entry, "content", update["message"], type="text")
    document: bytes = ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True)
    return document


def _add(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> ElementTree.Element:
    """Add an element of Atom. Characters that XML cannot have become U+FFFD."""
    element = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", attributes)
    element.text = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text) or None
    return element
