"""Charts as SVG with sizes in per cent, so text keeps its size at any width and no inline style is needed. Pure.

A chart is a grid of three parts: the unit with the last value, the labels of the y axis, and the plot. Hovering over a
value shows it. pages.js moves along the values with the arrow keys. A table below has the figures. Each value may link
to its own time: pages.js follows the link with Enter, and opens a longer time after dragging over several values.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, log10
from typing import NamedTuple

from markupsafe import Markup, escape

Format = Callable[[float], str]
LABELS_MAX = 6
"""Approximate number of labels on the x axis."""
FEW_LABELS = 3
"""So many labels of the x axis have room on the narrowest page. Every second one of more is hidden there."""
LONE_WIDTH = 8
"""Half the width of a single value between gaps of a line, in a plot 1000 wide."""
STEPS = (1, 2, 2.5, 5, 10)
HEIGHTS = {"o": 100, "w": 72, "b": 44, "n": 14}
"""The height of a day's bar in per cent by its state. A shorter bar is a worse day."""
FILLS = {"o": 'class="fo"', "n": 'class="fn"', "w": 'fill="url(#pw)"', "b": 'fill="url(#pb)"'}


class Series(NamedTuple):
    """A series: its name, its colour class (1 to 4, w, b), and its values. None is a gap."""

    name: str
    css: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Axes:
    """A chart's description, formats of values, and additions to the series."""

    unit: str
    label: str
    """A sentence that describes the chart."""
    format_value: Format = str
    format_axis: Format = str
    kind: str = ""
    """The class of its height: short, tall, xtall, or empty."""
    mark: tuple[float, str] | None = None
    """A horizontal line: its value and its label."""
    links: Sequence[str] = ()
    """The link of each value; empty: no links."""
    so_far: str = ""
    """A note on the last bar if its time is not over; else empty."""


def compute_steps(most: float, least: float = 0, count: int = 4) -> list[float]:
    """Return even steps around 0, `least` and `most`. The step is 1, 2, 2.5 or 5 times a power of ten."""
    low, top = min(least, 0), max(most, 0)
    if low == top:
        return [0, 1]
    narrow = (top - low) / count
    power = 10 ** floor(log10(narrow))
    step = next(step * power for step in STEPS if step * power >= narrow * 0.999)
    return [number * step for number in range(floor(low / step + 1e-9), ceil(top / step - 1e-9) + 1)]


def draw_bars(
    labels: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    places: int = 0,
    expected: Sequence[float] = (),
    before: Sequence[float] = (),
    **axes: object,
) -> Markup:
    """Return a bar chart. Several series are stacked. Negative values are below the axis.

    `places` is the number of bars that have room. `expected` are future values, drawn hatched. `before` is the
    preceding period, drawn as a dashed line.
    """
    frame = Axes(**axes)  # type: ignore[arg-type]
    stacked = [Series(*one) for one in series]
    columns = [[value or 0 for value in column] for column in zip(*(series.values for series in stacked), strict=True)]
    others = [*expected, *before, *_list_mark(frame)]
    tops = [sum(value for value in column if value > 0) for column in columns]
    lows = [sum(value for value in column if value < 0) for column in columns]
    steps = compute_steps(max([0, *tops, *others]), min([0, *lows, *others]))
    step = 100 / max(places, len(labels) + len(expected), 1)
    pieces = []
    for number, label in enumerate(labels):
        bars = _draw_stack(stacked, number, step, steps)
        earlier = f" · {frame.format_value(before[number])} ◂" if number < len(before) else ""
        is_open = frame.so_far and number == len(labels) - 1
        tip = f"{label}{f', {frame.so_far}' if is_open else ''} · {_write(stacked, number, frame)}{earlier}"
        css = "pt open" if is_open else "pt"
        pieces.append(_draw_point(number * step, step, bars, tip, _find_link(frame, number), css))
    for place, value in enumerate(expected):
        number = len(labels) + place
        bar = _draw_bar(number, step, (_place(value, steps), _place(0, steps)), 'fill="url(#px)"')
        pieces.append(_draw_point(number * step, step, bar, frame.format_value(value)))
    if before:
        # The line begins in the middle of the first bar, and continues in steps of a bar.
        line = _trace(before, step=10 * step, steps=steps)
        x, head = _n(step / 2), 'height="100%" viewBox="0 0 1000 100" preserveAspectRatio="none" overflow="visible"'
        pieces.append(f'<svg class="before" x="{x}%" width="100%" {head}><path class="l l0" d="{line}"/></svg>')
    if labels:
        so_far = f", {frame.so_far}" if frame.so_far else ""
        pieces.append(_draw_tip(f"{labels[-1]}{so_far} · {frame.format_value(sum(columns[-1]))}", "last"))
    xs = [((number + 0.5) * step, labels[number]) for number in _choose_labels(len(labels), places)]
    return _frame(frame, steps, "".join(pieces), xs)


def draw_lines(
    labels: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    before: Sequence[float] = (),
    area: bool = False,
    places: int = 0,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
    **axes: object,
) -> Markup:
    """Return a line chart.

    `before` is the preceding period, drawn dashed. `area` fills the area below the first series. `band` is a range
    (low, high) that continues from the last value, up to `places` values.
    """
    frame = Axes(**axes)  # type: ignore[arg-type]
    drawn = [Series(*one) for one in series]
    values = [value for series in drawn for value in series.values if value is not None]
    values += [*before, *(value for edge in band or () for value in edge), *_list_mark(frame)]
    steps = compute_steps(max([0, *values]), min([0, *values]))
    count = max(len(labels), places)
    step = 1000 / max(count - 1, 1)

    trace = partial(_trace, step=step, steps=steps)
    paths = _draw_area(trace(drawn[0].values), _n(_place(0, steps))) if area and labels else ""
    paths += _draw_band(trace, len(labels) - 1, *band) if band else ""
    paths += f'<path class="l l0" d="{trace(before)}"/>' if before else ""
    paths += "".join(f'<path class="l l{series.css}" d="{trace(series.values)}"/>' for series in drawn)
    plot = f'<svg width="100%" height="100%" viewBox="0 0 1000 100" preserveAspectRatio="none">{paths}</svg>'
    wide = 100 / max(count - 1, 1)
    for number, label in enumerate(labels):
        x = number * wide
        guide = f'<rect class="guide" x="{_n(x)}%"/>'
        earlier = f" · {frame.format_value(before[number])} ◂" if number < len(before) else ""
        tip = f"{label} · {_write(drawn, number, frame)}{earlier}"
        left, link = max(0.0, x - wide / 2), _find_link(frame, number)
        plot += _draw_point(left, min(wide, 100 - left), guide, tip, link)
    known = [number for number in range(len(labels)) if any(series.values[number] is not None for series in drawn)]
    if known:  # The newest figures may be missing.
        plot += _draw_tip(f"{labels[known[-1]]} · {_write(drawn, known[-1], frame)}", "last")
    xs = [(number * wide, labels[number]) for number in _choose_labels(len(labels), places)]
    return _frame(frame, steps, plot, xs)


def draw_sparkline(values: Sequence[float | None], css: str = "1") -> Markup:
    """Return a line without axes for a tile or a row. Its number is displayed beside it. None is a gap."""
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    values = [*values] * (2 if len(values) == 1 else 1)  # A single value is drawn as a level.
    least, span = min(known), (max(known) - min(known)) or 1
    # From 5 to 95 % of the height, as the line is thick.
    shares = [None if value is None else 5 + 90 * (value - least) / span for value in values]
    line = _trace(shares, step=1000 / max(len(values) - 1, 1), steps=(0, 100))
    head = '<svg class="spark" aria-hidden="true" viewBox="0 0 1000 100" preserveAspectRatio="none">'
    return Markup(f'{head}<path class="l l{escape(css)}" d="{line}"/></svg>')


def draw_days(days: Sequence[tuple[str, str]], label: str) -> Markup:
    """Return a bar for each day, from its state and its description.

    Height, pattern and colour show the state: o: no failures, w: some, b: many, n: not measured.
    """
    step = 100 / max(len(days), 1)
    bars = "".join(
        f'<rect {FILLS[state]} x="{_n(number * step)}%" y="{100 - HEIGHTS[state]}%" width="{_n(step * 0.72)}%" '
        f'height="{HEIGHTS[state]}%"><title>{escape(what)}</title></rect>'
        for number, (state, what) in enumerate(days)
    )
    return Markup(f'<svg class="days" role="img" aria-label="{escape(label)}">{bars}</svg>')


# ---- pieces


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _place(value: float, steps: Sequence[float]) -> float:
    """Return the place of a value on the y axis, in per cent from the top."""
    return 100 * (steps[-1] - value) / (steps[-1] - steps[0])


def _list_mark(axes: Axes) -> list[float]:
    return [axes.mark[0]] if axes.mark else []


def _choose_labels(count: int, places: int) -> range:
    return range(0, count, max(1, -(-max(count, places) // LABELS_MAX)))


def _fill(css: str) -> str:
    return 'class="f1"' if css == "1" else f'fill="url(#p{escape(css)})"'


def _write(series: Sequence[Series], number: int, axes: Axes) -> str:
    pairs = ((line.name, line.values[number]) for line in series)
    written = [(name, axes.format_value(value)) for name, value in pairs if value is not None]
    return " · ".join(f"{name} {value}" if len(series) > 1 else value for name, value in written) or "–"


def _draw_area(line: str, zero: str) -> str:
    """Return the area between a line and the axis. A gap of the line is also a gap of the area."""
    path = ""
    for part in line.split("M")[1:]:
        ends = part.split("L")
        path += f"M{ends[0].split()[0]} {zero}L{part}L{ends[-1].split()[0]} {zero}Z"
    return f'<path class="area" d="{path}"/>'


def _draw_band(trace: Callable[..., str], start: int, low: Sequence[float], high: Sequence[float]) -> str:
    back = "L".join(reversed(trace(low, start)[1:].split("L")))
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    return f'<path class="range" d="{trace(high, start)}L{back}Z"/><path class="l l0" d="{trace(middle, start)}"/>'


def _trace(numbers: Sequence[float | None], start: int = 0, *, step: float, steps: Sequence[float]) -> str:
    """Return the SVG path of values, with gaps for None. A single value between gaps becomes a dash."""
    path = ""
    for number, value in enumerate(numbers):
        if value is None:
            continue
        is_begun = number > 0 and numbers[number - 1] is not None
        goes_on = number + 1 < len(numbers) and numbers[number + 1] is not None
        x, y = (start + number) * step, _n(_place(value, steps))
        if is_begun or goes_on:
            path += f"{'L' if is_begun else 'M'}{_n(x)} {y}"
        else:
            left = min(max(x - LONE_WIDTH, 0), 1000 - 2 * LONE_WIDTH)
            path += f"M{_n(left)} {y}L{_n(left + 2 * LONE_WIDTH)} {y}"
    return path


def _draw_stack(series: Sequence[Series], number: int, step: float, steps: Sequence[float]) -> str:
    bars, above, below = "", 0.0, 0.0
    for one in series:
        value = one.values[number] or 0
        if value > 0:
            bars += _draw_bar(number, step, (_place(above + value, steps), _place(above, steps)), _fill(one.css))
            above += value
        elif value < 0:
            bars += _draw_bar(number, step, (_place(below, steps), _place(below + value, steps)), _fill(one.css))
            below += value
    return bars


def _draw_bar(number: int, step: float, ends: tuple[float, float], fill: str) -> str:
    """Return a bar from its upper to its lower end, in per cent from the top."""
    x, wide, (y, bottom) = number * step + step * 0.16, step * 0.68, ends
    return f'<rect {fill} x="{_n(x)}%" y="{_n(y)}%" width="{_n(wide)}%" height="{_n(bottom - y)}%"/>'


def _draw_tip(text: str, css: str = "tip") -> str:
    return f'<text class="{css}" x="100%" y="-12">{escape(text)}</text>'


def _find_link(axes: Axes, number: int) -> str:
    return axes.links[number] if number < len(axes.links) else ""


def _draw_point(x: float, wide: float, inner: str, tip: str, link: str = "", css: str = "pt") -> str:
    """Return the area of a value. Its link is only for pointers; readers and keyboards use the table's links."""
    hit = f'<rect class="hit" x="{_n(x)}%" width="{_n(wide)}%"/>'  # style.css sets the height, because a page has many.
    inside = f"{hit}{inner}{_draw_tip(tip)}"
    if link:
        return f'<a class="{css}" href="{escape(link)}" tabindex="-1" aria-hidden="true">{inside}</a>'
    return f'<g class="{css}">{inside}</g>'


def _draw_grid(axes: Axes, steps: Sequence[float]) -> Iterator[str]:
    for step in steps:
        y = _n(_place(step, steps))
        yield f'<line class="grid{"" if step else " zero"}" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>'
    if axes.mark:
        y = _n(_place(axes.mark[0], steps))
        yield f'<line class="mark" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>'
        # At the top the label would overlap the unit.
        below = _place(axes.mark[0], steps) < 15
        yield f'<text x="0" dy="{14 if below else -5}" y="{y}%">{escape(axes.mark[1])}</text>'


def _frame(axes: Axes, steps: Sequence[float], inner: str, xs: Sequence[tuple[float, str]]) -> Markup:
    names = [axes.format_axis(step) for step in steps]
    # If several steps have equal labels, for example 0 and 0.01 cents, only the first is labelled.
    shown = [name if name not in names[:number] else "" for number, name in enumerate(names)]
    ys = "".join(f"<span>{escape(name)}</span>" for name in reversed(shown))
    hidden_when_narrow = ' class="alt"' if len(xs) > FEW_LABELS else ""
    along = "".join(
        f'<text{hidden_when_narrow if number % 2 else ""} x="{_n(x)}%" y="1.1em" '
        f'text-anchor="{"start" if x < 4 else "end" if x > 96 else "middle"}">{escape(label)}</text>'
        for number, (x, label) in enumerate(xs)
    )
    grid = "".join(_draw_grid(axes, steps))
    role = "group" if axes.links else "img"  # Links inside a picture cannot be followed.
    return Markup(
        f'<div class="chart {escape(axes.kind)}"><p class="unit"><span>{escape(axes.unit)}</span></p>'
        f'<div class="y" aria-hidden="true">{ys}</div>'
        f'<svg class="plot" role="{role}" aria-label="{escape(axes.label)}">{grid}{inner}</svg>'
        f'<span></span><svg class="x" aria-hidden="true">{along}</svg></div>'
    )
