"""The operator's logo and colours as files for pages. Their paths contain a hash of the content."""

import hashlib
from collections.abc import Iterator

from edgeproxy.config.collector.brand import Brand

GROUND = "light-dark(#f0f2f5, #1c2026)"
"""The background of a selected menu item, from style.css. The contrast of colours is checked against it."""


def find_path(content: bytes, name: str) -> str:
    """Return the path of a file with a hash of its content, so that caches may store it for ever."""
    return f"/pages/{hashlib.sha256(content).hexdigest()[:12]}/{name}"


class BrandFiles:
    """The files of a brand, read once. Paths of missing files are empty."""

    def __init__(self, brand: Brand) -> None:
        """Read the logo, and create the style sheet with the colours."""
        self._logo = b"" if brand.logo is None else brand.logo.read_bytes()
        accent = f"light-dark({brand.light}, {brand.dark})"
        sheet = f":root {{ --accent: {accent}; --accent-bg: {GROUND}; }}\n"
        self._sheet = b"" if brand.light is None else sheet.encode()
        self.logo = find_path(self._logo, "logo.png") if self._logo else ""
        """The path of the logo."""
        self.sheet = find_path(self._sheet, "brand.css") if self._sheet else ""
        """The path of the style sheet, loaded after style.css."""

    def list_files(self) -> Iterator[tuple[str, bytes, str]]:
        """Yield the path, the content and the media type of each file."""
        if self.logo:
            yield self.logo, self._logo, "image/png"
        if self.sheet:
            yield self.sheet, self._sheet, "text/css"


NO_BRAND = BrandFiles(Brand())
