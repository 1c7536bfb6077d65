"""A run as one HTML file that needs no network: figures inlined, plots drawn by uPlot, the same figures as tables."""

import base64
import hashlib
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

HERE = Path(__file__).parent
UPLOT = HERE / "uplot"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Load test: {verdict}</title>
<style>{uplot_css}{css}</style>
<main id="report"><noscript>{noscript}</noscript></main>
<script type="application/json" id="figures">{figures}</script>
<script>{uplot}</script>
<script>{script}</script>
</html>
"""


def checked(name: str) -> str:
    """A file of uPlot; raises ValueError where it is not the released one."""
    content = (UPLOT / name).read_bytes()
    sums = {name: said for said, name in map(str.split, (UPLOT / "SHA256SUMS").read_text().splitlines())}
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise ValueError(f"{name} is not the file of uPlot 1.6.32 that SHA256SUMS names")
    return content.decode()


def page(figures: Mapping[str, Any]) -> str:
    """The page. Histograms stay in figures.json, which is what programs read."""
    shown = dict(figures)
    shown["latency"] = [{k: v for k, v in row.items() if k != "histogram"} for row in figures["latency"]]
    uplot, script = checked("uPlot.iife.min.js"), (HERE / "page.js").read_text()
    # Escaped so that no text can end the element it is in.
    data = orjson.dumps(shown, option=orjson.OPT_NON_STR_KEYS).decode().replace("<", "\\u003c")
    allowed = " ".join(f"'sha256-{digest(one)}'" for one in (uplot, script))
    lines = [f"verdict: {figures['verdict']}", *figures["findings"]]
    return PAGE.format(
        verdict=html.escape(figures["verdict"]),
        policy=f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'",
        uplot_css=checked("uPlot.min.css"),
        css=(HERE / "page.css").read_text(),
        noscript="<br>".join(map(html.escape, lines)),
        figures=data,
        uplot=uplot,
        script=script,
    )


def digest(script: str) -> str:
    """By which the page's policy lets a script run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
