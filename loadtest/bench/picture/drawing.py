"""The picture as SVG, written by hand: bars of sent and admitted requests, and lines of the last minute's count.

Its colours follow the reader's preference for light or dark, on their own background, so it is readable on any page.
"""

from collections.abc import Iterable, Sequence

from loadtest.bench.picture.traffic import END, PHASES, Outcome

BIN = 5.0
"""Seconds of a bar."""
LIMIT = 60
WIDTH, LEFT, RIGHT = 860, 172, 36
SCALE = (WIDTH - LEFT - RIGHT) / END
"""Units per second."""
TOP, ROW, BARS = 98, 96, 62
"""The top of the first row, the height of a row, and the height of its highest bar."""
GAP, LINES, FOOT = 44, 190, 38
"""The space above the lines, their height, and the space below."""
HIGHEST = 80
"""Requests of the highest bar."""
MOST = 120
"""The highest number on the lines' scale."""

LABELS = {
    "sliding_window": (13.0, 50.0),
    "token_bucket": (177.0, 108.0),
    "hybrid": (141.0, 22.0),
    "burst_credits": (43.0, 98.0),
}
"""Positions of the lines' names (seconds, requests). The concurrency limit has no line, because it does not count
requests per minute.
"""

COLOURS = {
    "sliding_window": ("#1f6fd0", "#6aaef5"),
    "token_bucket": ("#c05717", "#f09a5c"),
    "hybrid": ("#0b8065", "#3fc4a0"),
    "burst_credits": ("#7547c4", "#b197f5"),
    "concurrency": ("#b8306f", "#f083b3"),
}
"""Colours by plan, on a light background and on a dark one."""
INK = {
    "ground": ("#ffffff", "#15181d"),
    "ink": ("#1c2128", "#e8ebef"),
    "quiet": ("#59626e", "#a3adb9"),
    "rule": ("#d5dae0", "#3a424c"),
    "asked": ("#dfe4ea", "#363e48"),
}


def drawing(found: Sequence[Outcome]) -> str:
    """Return the whole picture."""
    below = TOP + ROW * len(found)
    height = below + GAP + LINES + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title what">',
        '<title id="title">What each algorithm admits of the same requests</title>',
        f'<desc id="what">{_described(found)}</desc>',
        f"<style>\n{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
        *_heading(),
        *(part for number, outcome in enumerate(found) for part in _row(outcome, TOP + ROW * number)),
        *_last_minute([outcome for outcome in found if outcome.plan.name in LABELS], below + GAP),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _described(found: Iterable[Outcome]) -> str:
    counts = ", ".join(f"{phase.requests} requests ({phase.what})" for phase in PHASES)
    admitted = "; ".join(
        f"{outcome.plan.name} admits {', '.join(str(outcome.of(phase)) for phase in PHASES)}" for outcome in found
    )
    return f"Of {counts}: {admitted}."


def _style() -> str:
    fonts = "font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    lines = [
        f"text {{ {fonts}; font-size: 12px; }}",
        ".name { font-size: 14px; font-weight: 600; }",
        ".title { font-size: 16px; font-weight: 600; }",
        ".end { text-anchor: end; }",
        ".middle { text-anchor: middle; }",
        ".count { font-weight: 600; }",
        ".line { fill: none; stroke-width: 2; stroke-linejoin: round; }",
        ".thin { stroke-width: 1; }",
        ".dashed { stroke-width: 1; stroke-dasharray: 4 3; }",
        *_coloured(0),
        "@media (prefers-color-scheme: dark) {",
        *(f"  {line}" for line in _coloured(1)),
        "}",
    ]
    return "".join(f"  {line}\n" for line in lines)


def _coloured(scheme: int) -> list[str]:
    fills = [f".{name} {{ fill: {colours[scheme]}; }}" for name, colours in (INK | COLOURS).items()]
    strokes = [f".line.{name} {{ fill: none; stroke: {colours[scheme]}; }}" for name, colours in COLOURS.items()]
    rules = [f".thin {{ stroke: {INK['rule'][scheme]}; }}", f".dashed {{ stroke: {INK['quiet'][scheme]}; }}"]
    return [*fills, *strokes, *rules]


def _heading() -> list[str]:
    parts = [_text(20, 32, "What each algorithm admits of the same requests", "title ink")]
    parts.append(f'<rect class="asked" x="{LEFT}" y="47" width="12" height="12"/>')
    parts.append(_text(LEFT + 18, 57, "asked", "quiet"))
    for number, name in enumerate(COLOURS):
        parts.append(f'<rect class="{name}" x="{LEFT + 66 + 13 * number}" y="47" width="12" height="12"/>')
    parts.append(_text(LEFT + 66 + 13 * len(COLOURS) + 5, 57, f"admitted, in each {BIN:.0f} s", "quiet"))
    for phase in PHASES:
        middle = (_x(phase.since) + _x(max(phase.until, phase.since + BIN))) / 2
        parts.append(_text(middle, TOP - 8, phase.what, "middle ink"))
    parts.append(_text((_x(PHASES[-1].until) + _x(END)) / 2, TOP - 8, "silence", "middle ink"))
    return parts


def _row(outcome: Outcome, top: float) -> list[str]:
    plan, ground = outcome.plan, top + ROW - 14
    parts = [_text(20, top + 38, plan.name, f"name {plan.name}")]
    parts += [_text(20, top + 56 + 16 * number, said, "quiet") for number, said in enumerate(plan.said)]
    asked = [time for phase in PHASES for time in phase.times()]
    for number in range(int(END / BIN)):
        since, until = number * BIN, (number + 1) * BIN
        parts += _bar("asked", since, sum(since <= time < until for time in asked), ground)
        parts += _bar(plan.name, since, outcome.between(since, until), ground)
    parts.append(f'<path class="thin" d="M{LEFT} {ground}H{WIDTH - RIGHT}"/>')
    for phase in PHASES:
        # A burst has its number above its bar, all that is longer above its middle.
        high = max(
            sum(since <= time < since + BIN for time in phase.times()) for since in (phase.since, phase.since + BIN)
        )
        middle = (_x(phase.since) + _x(max(phase.until, phase.since + BIN))) / 2
        y = ground - BARS * high / HIGHEST - 5
        parts.append(_text(middle, y, f"{outcome.of(phase)} of {phase.requests}", f"middle count {plan.name}"))
    return parts


def _bar(kind: str, since: float, count: int, ground: float) -> list[str]:
    if not count:
        return []
    high = BARS * count / HIGHEST
    where = f'x="{_x(since) + 0.75:.4g}" y="{ground - high:.5g}" width="{SCALE * BIN - 1.5:.4g}" height="{high:.4g}"'
    return [f'<rect class="{kind}" {where}/>']


def _last_minute(found: Sequence[Outcome], top: float) -> list[str]:
    ground = top + LINES

    def y(count: float) -> float:
        return ground - LINES * count / MOST

    parts = [_text(20, top + 38, "admitted in", "ink"), _text(20, top + 54, "the last minute", "ink")]
    for count in range(0, MOST + 1, 30):
        parts.append(f'<path class="thin" d="M{LEFT} {y(count):.5g}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, y(count) + 4, str(count), "end quiet"))
    parts.append(f'<path class="dashed" d="M{LEFT} {y(LIMIT):.5g}H{WIDTH - RIGHT}"/>')
    # The widest line first: the window's line must be on top of lines at equal positions.
    for outcome in sorted(found, key=lambda outcome: -outcome.most):
        path = "".join(
            f"{'M' if second == 0 else 'L'}{_x(second):.5g} {y(outcome.last_minute(second)):.5g}"
            for second in range(int(END) + 1)
        )
        parts.append(f'<path class="line {outcome.plan.name}" d="{path}"/>')
    for name, (second, highest) in LABELS.items():
        parts.append(_text(_x(second), y(highest), name, f"count {name}"))
    parts.append(_text(WIDTH - RIGHT, y(LIMIT) - 5, "60, the limit", "end quiet"))
    for minute in range(int(END / 60) + 1):
        parts.append(_text(_x(minute * 60), ground + 18, f"{minute} min" if minute else "0", "middle quiet"))
    return parts


def _x(seconds: float) -> float:
    return LEFT + seconds * SCALE


def _text(x: float, y: float, text: str, kinds: str) -> str:
    return f'<text class="{kinds}" x="{x:.5g}" y="{y:.5g}">{text}</text>'
