"""Interval plots as SVG, readable on light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LABEL, PLOT, FIGURES, ROW, TOP, FOOT = 250, 360, 150, 26, 10, 30
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.quiet { fill: #667082; font-size: 11px }
.axis { stroke: #c3cad5 } .margin { stroke: #8f5b00; stroke-dasharray: 4 3 }
.line { stroke-width: 2.5; stroke-linecap: round } .seed { opacity: .35 }
.supported { stroke: #0d7a52; fill: #0d7a52 } .not { stroke: #c22a36; fill: #c22a36 }
.open { stroke: #667082; fill: #667082 }
@media (prefers-color-scheme: dark) {
  text { fill: #e8ebf1 } .quiet { fill: #8791a3 } .axis { stroke: #3a4352 } .margin { stroke: #e8b04a }
  .supported { stroke: #4cc796; fill: #4cc796 } .not { stroke: #ff7b82; fill: #ff7b82 }
  .open { stroke: #8791a3; fill: #8791a3 }
}
"""


@dataclass(frozen=True)
class Bar:
    """One row: a mean, its interval and the values by seed. `margins` are drawn as ticks; `tone` is supported, not or
    open."""

    label: str
    figures: str
    mean: float
    low: float | None
    high: float | None
    seeds: Sequence[float] = ()
    margins: Sequence[float] = ()
    tone: str = "open"


def plot(bars: Sequence[Bar], title: str) -> str:
    """All rows on one axis."""
    low, high = _range(bars)
    height = TOP + ROW * len(bars) + FOOT
    width = LABEL + PLOT + FIGURES
    rows = "".join(_row(bar, TOP + ROW * (number + 0.5), low, high) for number, bar in enumerate(bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{_axis(low, high, height - FOOT)}{rows}</svg>\n"
    )


def _range(bars: Sequence[Bar]) -> tuple[float, float]:
    marks = [
        mark for bar in bars for mark in (bar.mean, bar.low, bar.high, *bar.seeds, *bar.margins) if mark is not None
    ]
    low, high = min(0.0, *marks), max(marks)
    room = (high - low or 1.0) * 0.04
    return low - room, high + room


def _x(value: float, low: float, high: float) -> float:
    return round(LABEL + PLOT * (value - low) / (high - low), 1)


def _row(bar: Bar, y: float, low: float, high: float) -> str:
    parts = [f'<text x="{LABEL - 12}" y="{y + 4}" text-anchor="end">{escape(bar.label)}</text>']
    for margin in bar.margins:
        x = _x(margin, low, high)
        parts.append(f'<line class="margin" x1="{x}" x2="{x}" y1="{y - 10}" y2="{y + 10}"/>')
    parts += [f'<circle class="seed {bar.tone}" cx="{_x(value, low, high)}" cy="{y}" r="2"/>' for value in bar.seeds]
    if bar.low is not None and bar.high is not None:
        ends = f'x1="{_x(bar.low, low, high)}" x2="{_x(bar.high, low, high)}"'
        parts.append(f'<line class="line {bar.tone}" {ends} y1="{y}" y2="{y}"/>')
    parts.append(f'<circle class="{bar.tone}" cx="{_x(bar.mean, low, high)}" cy="{y}" r="4"/>')
    parts.append(f'<text class="quiet" x="{LABEL + PLOT + 12}" y="{y + 4}">{escape(bar.figures)}</text>')
    return "".join(parts)


def _axis(low: float, high: float, y: float) -> str:
    parts = [f'<line class="axis" x1="{LABEL}" x2="{LABEL + PLOT}" y1="{y}" y2="{y}"/>']
    for tick in _ticks(low, high):
        x = _x(tick, low, high)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{y}" y2="{y + 4}"/>')
        parts.append(f'<text class="quiet" x="{x}" y="{y + 17}" text-anchor="middle">{tick:g}</text>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers."""
    for step in (base * 10.0**power for power in range(-6, 7) for base in (1, 2, 5)):
        if (high - low) / step <= 8:
            first = -int(-low // step)
            return [round(multiple * step, 9) for multiple in range(first, int(high // step) + 1)]
    return []
