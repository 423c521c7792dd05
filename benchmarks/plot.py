"""A bar chart as SVG."""

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.testbed import USUAL

Group = tuple[str, Mapping[str, float]]
"""The name of a scenario, and the CPU µs/request of each server."""

COLORS = {"floor A": "#c8ccd4", "floor B": "#a9afbb", "floor C": "#7d8594", "app": "#0f766e", USUAL: "#b45309"}
WIDTH, LEFT, RIGHT, TOP = 760, 170, 90, 64
BAR, GAP = 16, 18
FONT = "font-family='system-ui, sans-serif' font-size='13'"


def bars(title: str, groups: Sequence[Group]) -> str:
    longest = max(value for _, values in groups for value in values.values())
    parts, y = [], TOP
    for label, values in groups:
        middle = y + len(values) * BAR / 2
        parts.append(_text(LEFT - 12, middle + 4, label, "anchor-end"))
        for name, value in values.items():
            length = max(1.0, value / longest * (WIDTH - LEFT - RIGHT))
            parts.append(
                f"<rect x='{LEFT}' y='{y}' width='{length:.1f}' height='{BAR - 2}' rx='2' fill='{COLORS[name]}'/>"
            )
            parts.append(_text(LEFT + length + 6, y + 11, f"{value:,.0f}", "small"))
            y += BAR
        y += GAP
    legend = "".join(
        f"<rect x='{LEFT + place * 100}' y='36' width='12' height='12' rx='2' fill='{color}'/>"
        + _text(LEFT + place * 100 + 18, 47, name, "small")
        for place, (name, color) in enumerate(COLORS.items())
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y}' width='{WIDTH}' height='{y}' {FONT}>\n"
        "<style>text { fill: #1f2937 } .small { font-size: 11px } .anchor-end { text-anchor: end }</style>\n"
        f"<rect width='{WIDTH}' height='{y}' fill='#ffffff'/>\n"
        + _text(LEFT, 22, title, "")
        + legend
        + "\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' class='{kind}'>{escape(text)}</text>"
