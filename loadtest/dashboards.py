"""The dashboards of config/grafana/ without Grafana: each panel's queries are asked, and drawn into one HTML file each.

    python -m loadtest.dashboards http://127.0.0.1:9091 FOLDER [MINUTES]

The pictures in docs/operations/ were made like this, from a Prometheus that scrapes real edges. Grafana draws these
figures in another style.
"""

import html
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from loadtest.report.html import checked

DASHBOARDS = Path(__file__).parents[1] / "config" / "grafana" / "dashboards"
POINTS = 240
UNITS = {
    "s": (1e3, "ms"),
    "percentunit": (100.0, "%"),
    "percent": (1.0, "%"),
    "currencyUSD": (1.0, "USD"),
    "bytes": (1 / (1 << 20), "MiB"),
    "reqps": (1.0, "/s"),
    "ops": (1.0, "/s"),
}
"""The factor and the suffix for each of Grafana's units."""
STYLE = """
body { font: 13px system-ui, sans-serif; margin: 16px; width: 1240px; color: #1d2430; background: #fff }
h1 { font-size: 18px } h2 { font-size: 14px; grid-column: span 24; margin: 10px 0 0 }
main { display: grid; grid-template-columns: repeat(24, 1fr); gap: 10px }
section { border: 1px solid #d8dce4; border-radius: 4px; padding: 8px; overflow: hidden }
section > b { display: block; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.stat { font-size: 24px; margin-top: 6px } .none { color: #8a93a3; margin-top: 6px }
.u-legend { font-size: 11px; text-align: left }
.u-legend .u-value, .u-legend tr:first-child, .u-legend th::after { display: none }
"""
SCRIPT = """
const colours = ["#2563eb", "#db2777", "#059669", "#d97706", "#7c3aed", "#dc2626", "#0891b2", "#64748b"];
const clock = (_, at) => at.map((second) => new Date(second * 1000).toISOString().slice(11, 16));
for (const [id, x, series, unit] of PLOTS) {
  const box = document.getElementById(id);
  const line = ([label], n) => ({ label, stroke: colours[n % colours.length], width: 1.5, points: { show: false } });
  new uPlot({ width: box.clientWidth - 16, height: 150, cursor: { show: false },
    scales: { y: { range: (_, least, most) => [Math.min(0, least), most > 0 ? most * 1.1 : 1] } },
    axes: [{ values: clock }, { size: 62, values: (_, at) => at.map((value) => value + " " + unit) }],
    series: [{ label: "" }, ...series.map(line)],
  }, [x, ...series.map(([, values]) => values)], box);
}
"""


def ask(prometheus: str, path: str, **query: object) -> list[dict[str, Any]]:
    """Return Prometheus's answer; raises OSError."""
    with build_opener(ProxyHandler({})).open(f"{prometheus}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
    return found


def without_variables(expression: str, step: int) -> str:
    """Return a query with its variables replaced by matches of everything."""
    return re.sub(r"\$\{?\w+\}?", ".*", expression.replace("$__rate_interval", f"{max(20, 4 * step)}s"))


def label(written: str, metric: dict[str, str]) -> str:
    """Return the name of a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: metric.get(match[1], ""), written) or "value"


def drawn(prometheus: str, panel: dict[str, Any], end: float, minutes: float) -> tuple[str, list[Any] | None]:
    """Return a panel as HTML, and its plotted series."""
    step = max(1, round(minutes * 60 / POINTS))
    times, unit = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], (1.0, ""))
    name, at = f"panel-{panel['id']}", panel["gridPos"]
    head = f'<section id="{name}" style="grid-column: span {at["w"]}"><b>{html.escape(panel["title"])}</b>'
    if panel["type"] == "stat":
        found = ask(prometheus, "query", query=without_variables(panel["targets"][0]["expr"], step), time=end)
        value = f"{float(found[0]['value'][1]) * times:.4g} {unit}" if found else "–"
        return f'{head}<div class="stat">{value}</div></section>', None
    x = [end - minutes * 60 + step * number for number in range(round(minutes * 60 / step) + 1)]
    series = []
    for target in panel["targets"]:
        query = without_variables(target["expr"], step)
        for one in ask(prometheus, "query_range", query=query, start=x[0], end=end, step=step):
            at_time = {round(float(moment)): float(value) * times for moment, value in one["values"] if value != "NaN"}
            values = [at_time.get(round(moment)) for moment in x]
            if any(value is not None for value in values):
                series.append([label(target["legendFormat"], one["metric"]), values])
    if not series:
        return f'{head}<div class="none">nothing of it happened</div></section>', None
    return f"{head}</section>", [name, x, series[:12], unit]


def pages(prometheus: str, minutes: float) -> Iterator[tuple[str, str]]:
    """Yield the name of each dashboard, and its page."""
    end = float(int(time.time()))
    for file in sorted(DASHBOARDS.glob("*.json")):
        document, body, plots = json.loads(file.read_text()), [], []
        for panel in document["panels"]:
            if panel["type"] == "row":
                body.append(f"<h2>{html.escape(panel['title'])}</h2>")
                continue
            text, plot = drawn(prometheus, panel, end, minutes)
            body.append(text)
            plots += [plot] if plot else []
        data = json.dumps(plots).replace("<", "\\u003c")
        yield (
            file.stem,
            f'<!doctype html><meta charset="utf-8"><title>{document["title"]}</title>'
            f"<style>{checked('uPlot.min.css')}{STYLE}</style><h1>{document['title']}</h1><main>{''.join(body)}</main>"
            f"<script>{checked('uPlot.iife.min.js')}</script><script>const PLOTS = {data};{SCRIPT}</script>",
        )


def main() -> None:
    """Write the pages."""
    prometheus, folder, *rest = sys.argv[1:]
    for name, page in pages(prometheus.rstrip("/"), float(rest[0]) if rest else 30.0):
        (Path(folder) / f"{name}.html").write_text(page)


if __name__ == "__main__":
    main()
