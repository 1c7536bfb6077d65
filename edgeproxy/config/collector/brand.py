"""The operator's logo and accent colour on all pages: `pages.brand` in collector.yaml."""

import re
from collections.abc import Iterator
from pathlib import Path
from struct import unpack
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault
from edgeproxy.config.tree import Table
from edgeproxy.config.units import PatternText, value_error

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
A_COLOUR = "a colour such as #0b6b5c"
A_LOGO = "a PNG of at most 32 KiB and 1024 pixels a side"
LOGO_BYTES_MAX = 32 << 10
LOGO_PIXELS_MAX = 1024
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
"""The beginning of a PNG (RFC 2083 section 3): its signature, then the chunk with width and height."""
CONTRAST_MIN = 4.5
"""Minimum contrast of text (WCAG 2.2, 1.4.3)."""
LIGHT_BESIDE = ("#ffffff", "#f6f7f9", "#f3f5f8", "#f0f2f5")
"""The colours beside the accent in the light scheme of style.css: behind it, or in front of it."""
DARK_BESIDE = ("#0e1013", "#15181c", "#1d2127", "#1c2026", "#0d1330")


def compute_luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2) of a colour in the form #0b6b5c, from 0 to 1."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def compute_contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2), from 1 to 21."""
    lights = sorted((compute_luminance(one), compute_luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


read_colour = PatternText("colour", COLOUR, "{} is not a colour", A_COLOUR, ("#0b6b5c",), convert=str.lower)
"""Reads a colour."""


def find_logo_fault(content: bytes) -> str | None:
    """Return why a file cannot be a logo, or None."""
    if len(content) > LOGO_BYTES_MAX:
        return f"has more than {LOGO_BYTES_MAX} bytes"
    if not content.startswith(PNG) or len(content) < len(PNG) + 8:
        return "is no PNG"
    width, height = unpack(">II", content[len(PNG) : len(PNG) + 8])
    if not 0 < max(width, height) <= LOGO_PIXELS_MAX:
        return f"has {width} × {height} pixels"
    return None


@written(build_text("file", ".+", "logo.png"))
def read_logo_file(value: object) -> str:
    """Read the path of a logo file, which must exist."""
    path = parsers.read_file(value)
    with Path(path).open("rb") as opened:
        fault = find_logo_fault(opened.read(LOGO_BYTES_MAX + 1))
    if fault is not None:
        raise value_error(f"{path} {fault}", A_LOGO)
    return path


class Brand(Part):
    """[Logo and accent colour](pages.md#brand) of all pages."""

    logo: Annotated[Path, BeforeValidator(read_logo_file)] | None = Field(
        default=None,
        description="PNG image that replaces the sign before the name, 24 pixels high on the page; at most 32 KiB and "
        "1024 pixels a side, read at the start. SVG is refused, because it can contain scripts.",
    )
    light: Annotated[str, BeforeValidator(read_colour)] | None = Field(
        default=None,
        description="Colour of links and main buttons in the light scheme. White text on it, and this colour on the "
        "pages' backgrounds, must have a contrast of 4.5:1.",
    )
    dark: Annotated[str, BeforeValidator(read_colour)] | None = Field(
        default=None,
        description="A light colour for links and main buttons in the dark scheme. Set both `light` and `dark`, or "
        "neither.",
    )


def find_brand_faults(brand: Table) -> Iterator[Fault]:
    """Find incomplete or unreadable colours in `pages.brand`."""
    if ("light" in brand) != ("dark" in brand):
        yield Fault(("pages", "brand"), "has one of light and dark", "write both, or none")
    for name, beside in (("light", LIGHT_BESIDE), ("dark", DARK_BESIDE)):
        colour = brand.get(name)
        if not isinstance(colour, str) or not COLOUR.fullmatch(colour):
            continue
        least = min(compute_contrast(colour, other) for other in beside)
        if least < CONTRAST_MIN:
            way = "a darker colour" if name == "light" else "a lighter colour"
            yield Fault(
                ("pages", "brand", name), f"has a contrast of {least:.2f}:1 where {CONTRAST_MIN}:1 is needed", way
            )
