"""Refilling a refused form: the sender's values are restored, and errors are placed beside the fields. Pure.

The page is rendered normally. Then this module puts the values into one form of its HTML. So every form keeps its
values, and templates need no code for that.
"""

from collections.abc import Mapping, Sequence
from html import escape, unescape
from html.parser import HTMLParser
from typing import NamedTuple

SUMMARY = '<ul class="errors"></ul>'
"""The place for the list of errors in a page."""
UNTOUCHED = frozenset({"hidden", "password", "file", "submit", "button"})
"""Types of inputs that are not refilled."""
ONCE = "once"
"""The hidden field with a form's Idempotency-Key. It is refilled if the next request must repeat the first one."""
NAMES = {"expires_at": "expires", "amount_cents": "amount", "rotate_every": "rotate"}
"""API names of fields with another name in forms."""
FIELDS = {
    "paused.why": "why",
    "paused.status": "status",
    "until": "span",
    **{f"address.{name}": name for name in ("line1", "line2", "city", "state", "postal_code", "country")},
}
"""Form names of nested API fields, and of fields that a form presents differently."""


class FieldRefusal(NamedTuple):
    """An invalid field, by its name in the API, and the reason."""

    field: str
    why: str
    detail: str = ""
    """The API's text in English, if there is no other text."""

    @property
    def html(self) -> str:
        """Return the reason as HTML."""
        return escape(self.why) + (f' <span lang="en">{escape(self.detail)}</span>' if self.detail else "")


class Refusal(NamedTuple):
    """The refusal of a form: the reason, and the errors of its fields by their names in the API."""

    why: str
    is_english: bool
    """True if the reason is not in the reader's language."""
    detail: str
    """The API's sentence in English, after a reason in the reader's language; empty if it says no more."""
    errors: Sequence[FieldRefusal]


class _Piece:
    """A piece of HTML, before and after refilling."""

    def __init__(self, html: str) -> None:
        self.before = self.after = html


class _Filler(HTMLParser):
    def __init__(self, action: str, values: Mapping[str, str], refusals: Mapping[str, FieldRefusal]) -> None:
        super().__init__(convert_charrefs=False)
        self.pieces: list[_Piece] = []
        self.listed: list[tuple[str, str, str]] = []
        self._action, self._values, self._refusals = action, values, refusals
        self._details: list[_Piece] = []
        self._form = -1
        self._is_ours = self._is_done = False
        self._select = self._area = self._label = ""
        self._after_label = self._own_id = ""

    # ---- pieces of HTML

    def _add(self, html: str) -> _Piece:
        piece = _Piece(html)
        if self._area:
            piece.after = ""
        self.pieces.append(piece)
        return piece

    def handle_data(self, data: str) -> None:
        self._label += data
        self._add(data)

    def handle_entityref(self, name: str) -> None:
        self._label += unescape(f"&{name};")
        self._add(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._add(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        self._add(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self._add(f"<!{decl}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        piece = self._add(self.get_starttag_text() or "")
        fields = {name: value or "" for name, value in attrs}
        if tag == "details":
            self._details.append(piece)
        elif tag == "label":
            self._label, self._after_label = "", ""
        elif tag == "form":
            self._form = len(self.pieces)
            self._is_ours = not self._is_done and fields.get("action") == self._action and "post" in fields.values()
            self._own_id = fields.get("id", "") if self._is_ours else self._own_id
        elif self._own_id and fields.get("form") == self._own_id:
            self._fill(tag, fields, piece)  # The field is elsewhere on the page.
        elif self._is_ours and tag in ("input", "textarea", "select", "option"):
            self._fill(tag, fields, piece)

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""
        piece = self._add(f"</{tag}>")
        if tag == "details" and self._details:
            self._details.pop()
        elif tag == "label" and self._after_label:
            piece.after, self._after_label = piece.after + self._after_label, ""
        elif tag == "select":
            self._select = ""
        elif tag == "form" and self._is_ours:
            self._is_ours, self._is_done = False, True
            for detail in self._details:
                detail.after = detail.after.replace("<details", "<details open", 1)

    # ---- fields

    def _fill(self, tag: str, fields: Mapping[str, str], piece: _Piece) -> None:
        name, kind = fields.get("name", ""), fields.get("type", "text")
        if tag == "option":
            if self._select in self._values:
                is_chosen = fields.get("value", "") == self._values[self._select]
                piece.after = _write_tag(tag, {**fields, "selected": ""} if is_chosen else fields, drop=not is_chosen)
            return
        if kind == "hidden":
            if name == ONCE and ONCE in self._values:
                piece.after = _write_tag(tag, {**fields, "value": self._values[ONCE]})
            elif name in self._values and self._values[name] != fields.get("value"):
                self._leave()
            return
        if kind in UNTOUCHED and tag == "input":
            return
        changed = dict(fields)
        if kind in ("checkbox", "radio"):
            changed.pop("checked", None)
            if self._values.get(name, "\0") == fields.get("value", "on"):
                changed["checked"] = ""
        elif tag == "input" and name in self._values:
            changed["value"] = self._values[name]
        piece.after = _write_tag(tag, self._judge(name, changed))
        if tag == "select":
            self._select = name
        elif tag == "textarea" and name in self._values:
            piece.after += escape(self._values[name])
            self._area = name

    def _judge(self, name: str, fields: dict[str, str]) -> dict[str, str]:
        """Return the attributes of a field, with the error if it was refused."""
        refusal = self._refusals.get(name)
        if refusal is None:
            return fields
        place = fields.get("id") or f"refused-{name}"
        self._after_label = f'<span class="error" id="{escape(place)}-error">{refusal.html}</span>'
        self.listed.append((name, place, " ".join(self._label.split())))
        described = f"{fields.get('aria-describedby', '')} {place}-error".strip()
        return {**fields, "id": place, "aria-invalid": "true", "aria-describedby": described}

    def _leave(self) -> None:
        """Undo the changes in a form whose hidden fields differ. Several forms may have one action."""
        self._is_ours, self._area, self._after_label = False, "", ""
        self.listed.clear()
        for piece in self.pieces[self._form :]:
            piece.after = piece.before


def refill_form(html: str, action: str, values: Mapping[str, str], refusals: Sequence[FieldRefusal] = ()) -> str:
    """Return the page with values and errors in the form with this action, and with a list of the errors."""
    by_name: dict[str, FieldRefusal] = {}
    for refusal in refusals:
        name = refusal.field.partition(".")[0]
        by_name.setdefault(FIELDS.get(refusal.field) or NAMES.get(name, name), refusal)
    filler = _Filler(action, values, by_name)
    filler.feed(html)
    filler.close()
    filled = "".join(piece.after for piece in filler.pieces)
    beside = {name for name, _, _ in filler.listed}
    items = [
        f'<li><a href="#{escape(place)}">{escape(label)}</a>: {by_name[name].html}</li>'
        for name, place, label in filler.listed
    ]
    items += [f"<li>{escape(name)}: {refusal.html}</li>" for name, refusal in by_name.items() if name not in beside]
    return filled.replace(SUMMARY, f'<ul class="errors">{"".join(items)}</ul>' if items else "", 1)


def _write_tag(tag: str, fields: Mapping[str, str], *, drop: bool = False) -> str:
    written = "".join(
        f' {name}="{escape(value)}"' if value or name == "value" else f" {name}"
        for name, value in fields.items()
        if not (drop and name == "selected")
    )
    return f"<{tag}{written}>"
