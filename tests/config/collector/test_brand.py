"""The brand of pages: what `check` refuses of a logo and of colours, with what to do."""

from pathlib import Path
from struct import pack

import pytest
from pydantic import ValidationError

from edgeproxy.config.collector.brand import (
    DARK_BESIDE,
    LIGHT_BESIDE,
    LOGO_BYTES_MAX,
    PNG,
    Brand,
    compute_contrast,
    find_brand_faults,
)
from edgeproxy.config.tree import Table
from tests.collector.pages.test_colours import STYLE


def test_background_colours_equal_those_of_the_style_sheet() -> None:
    for name, light, dark in zip(("card", "bg", "hover", "sunk"), LIGHT_BESIDE, (1, 0, 2, 3), strict=True):
        assert f"--{name}: light-dark({light}, {DARK_BESIDE[dark]})" in STYLE
    assert f"--on-accent: light-dark(#ffffff, {DARK_BESIDE[4]})" in STYLE
    assert round(compute_contrast("#ffffff", "#767676"), 2) == 4.54, "the example of WCAG's understanding documents"


@pytest.mark.parametrize(
    ("brand", "why"),
    [
        ({"light": "#0b6b5c", "dark": "#7fe0cf"}, []),
        ({"light": "#0b6b5c"}, ["has one of light and dark"]),
        ({"light": "#777777", "dark": "#7fe0cf"}, ["has a contrast of 3.99:1 where 4.5:1 is needed"]),
        ({"light": "#0b6b5c", "dark": "#2f4fd0"}, ["has a contrast of 2.42:1 where 4.5:1 is needed"]),
    ],
)
def test_colours_belong_together_and_can_be_read(brand: dict[str, str], why: list[str]) -> None:
    assert [fault.what for fault in find_brand_faults(Table(brand))] == why


@pytest.mark.parametrize("colour", ["red", "#fff", "#0b6b5c;}", "url(//evil.test)", "#0b6b5g"])
def test_a_colour_cannot_be_anything_else(colour: str) -> None:
    with pytest.raises(ValidationError, match="is not a colour"):
        Brand.model_validate({"light": colour, "dark": "#7fe0cf"})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "is no PNG"),
        (PNG + pack(">I", 1), "is no PNG"),
        (PNG + pack(">II", 1025, 1), "has 1025 × 1 pixels"),
        (PNG + pack(">II", 64, 64) + b"x" * LOGO_BYTES_MAX, "has more than"),
    ],
)
def test_a_file_that_is_no_logo_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "logo.png"
    file.write_bytes(content)
    with pytest.raises(ValidationError, match=why):
        Brand.model_validate({"logo": str(file)})


def test_a_logo_is_the_file_that_was_named(tmp_path: Path) -> None:
    file = tmp_path / "logo.png"
    file.write_bytes(PNG + pack(">II", 64, 64))
    assert Brand.model_validate({"logo": str(file)}).logo == file
