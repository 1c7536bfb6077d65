"""PDF documents with text in most scripts. Equal contents give equal bytes.

Western European text uses Helvetica, which each PDF reader has. Other text uses the fonts in `fonts/`. Its letters
join, and run in the direction of their script.
"""

import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import uharfbuzz

with warnings.catch_warnings(action="ignore", category=UserWarning):  # The image has no Pillow, which fpdf2 misses.
    from fpdf import FPDF
    from fpdf.enums import MethodReturnValue, XPos, YPos
    from fpdf.fonts import TTFFont

FOLDER = Path(__file__).parent / "fonts"
FONTS = ("DejaVuSans", "NotoSansThai-Regular", "NotoSansDevanagari-Regular", "DroidSansFallback")
"""The fonts for text that is not Western European. The first one has Latin letters too."""
MARGIN = 20
FONT_SIZE = 9
LINE_HEIGHT = 5
LOST_LETTER = "?"
"""The text for a letter that is in no font."""
CREATED = datetime(2000, 1, 1, tzinfo=UTC)
"""The date of creation in each document, so that equal contents give equal bytes."""

Align = Literal["L", "R"]


class TextPdf(FPDF):
    """An A4 document of paragraphs and a table. Lengths are millimetres."""

    def __init__(self, title: str, texts: Iterable[str]) -> None:
        """Begin with a title, and embed the letters of `texts` that Helvetica does not have."""
        super().__init__()
        self.core_fonts_encoding = "cp1252"
        self.set_creation_date(CREATED)
        self.set_title(title)
        self.set_margin(MARGIN)
        self._columns: Sequence[tuple[float, Align]] = ()
        self._headings: Sequence[str] = ()
        self._embedded: list[TTFFont] = []
        self._lost: set[str] = set()
        if letters := {letter for text in map(_normalize, texts) if not is_western(text) for letter in text}:
            self._embed_fonts(letters | {LOST_LETTER})
        self.add_page()
        self.write_paragraph(title, size=18, bold=True)
        self.ln(LINE_HEIGHT)

    @property
    def loses_letters(self) -> bool:
        """True if letters of the texts are in no font. The document has question marks instead."""
        return bool(self._lost)

    def write_paragraph(self, text: str, *, size: float = FONT_SIZE, bold: bool = False) -> None:
        """Write a text on as many lines as it takes."""
        text = self._select_font(text, size, bold)
        self.multi_cell(0, size / 2, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def start_table(self, headings: Sequence[str], columns: Sequence[tuple[float, Align]]) -> None:
        """Write the headings, here and on each page of the table. A column has a width and an alignment."""
        self._headings, self._columns = headings, columns
        self._write_cells(headings, LINE_HEIGHT, bold=True)
        self.draw_rule()

    def write_row(self, texts: Sequence[str], *, bold: bool = False) -> None:
        """Write a row of the table, each text within its column."""
        height = self._measure_height(texts, bold)
        if self.will_page_break(height):
            self.add_page()
            self.start_table(self._headings, self._columns)
        self._write_cells(texts, height, bold)

    def draw_rule(self) -> None:
        """Draw a line across the page."""
        self.line(self.l_margin, self.y, self.w - self.r_margin, self.y)

    def _write_cells(self, texts: Sequence[str], height: float, bold: bool) -> None:
        top = self.y
        for text, (width, align) in zip(texts, self._columns, strict=True):
            shown = self._select_font(text, FONT_SIZE, bold)
            if self._fits(shown, width):  # Much faster than `multi_cell`.
                self.cell(width, LINE_HEIGHT, shown, align=align)
            else:
                self.multi_cell(width, LINE_HEIGHT, shown, align=align, new_x=XPos.RIGHT, new_y=YPos.TOP)
        self.set_xy(self.l_margin, top + height)

    def _measure_height(self, texts: Sequence[str], bold: bool) -> float:
        """Return the height of a row."""
        height: float = LINE_HEIGHT
        for text, (width, _) in zip(texts, self._columns, strict=True):
            shown = self._select_font(text, FONT_SIZE, bold)
            if not self._fits(shown, width):
                wrapped = self.multi_cell(width, LINE_HEIGHT, shown, dry_run=True, output=MethodReturnValue.HEIGHT)
                assert isinstance(wrapped, float)
                height = max(height, wrapped)
        return height

    def _fits(self, text: str, width: float) -> bool:
        return self.get_string_width(text) <= width - 2 * self.c_margin

    def _select_font(self, text: str, size: float, bold: bool) -> str:
        """Select the font that has most letters of a text. Return the text as fonts can show it."""
        text = "".join(LOST_LETTER if letter in self._lost else letter for letter in _normalize(text))
        if is_western(text):
            self.set_text_shaping(False)
            self.set_font("Helvetica", "B" if bold else "", size)
        else:
            self.set_text_shaping(True)
            font = max(self._embedded, key=lambda font: sum(ord(letter) in font.cmap for letter in text))
            self.set_font(font.fontkey, size=size)
        return text

    def _embed_fonts(self, letters: set[str]) -> None:
        """Embed the fonts that have these letters, cut to them: reading all of a Chinese font takes a second."""
        self._lost = set(letters)
        for name in FONTS:
            face = uharfbuzz.Face(uharfbuzz.Blob.from_file_path(FOLDER / f"{name}.ttf"))
            font = uharfbuzz.Font(face)
            covered = {letter for letter in letters if font.get_nominal_glyph(ord(letter))}
            if self._embedded and not covered & self._lost:
                continue
            self._lost -= covered
            subset = uharfbuzz.SubsetInput()
            # Shaping takes letters like the Thai sara am apart.
            subset.unicode_set.update(map(ord, covered.union(unicodedata.normalize("NFKD", "".join(covered)))))
            with NamedTemporaryFile(suffix=".ttf") as file:
                file.write(uharfbuzz.subset(face, subset).blob.data)
                file.flush()
                self.add_font(name, fname=file.name)
                embedded = self.fonts[name.lower()]
                assert isinstance(embedded, TTFFont)
                embedded.hbfont  # noqa: B018 - opens the file while it has a name
            self._embedded.append(embedded)
        self.set_fallback_fonts([font.fontkey for font in self._embedded], exact_match=False)


def is_western(text: str) -> bool:
    """Return whether Helvetica has all letters of a text."""
    return len(text.encode("cp1252", "ignore")) == len(text)


def _normalize(text: str) -> str:
    """Return a text with composed letters and plain spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()))
