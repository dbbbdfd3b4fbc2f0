"""Pictures of what was measured: bars as SVG, readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT, TOP, ROW, GAP = 760, 250, 96, 58, 17, 14

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note, .value { fill: #59636e }
.ours { fill: #0969da }
.theirs { fill: #afb8c1 }
.missed { fill: #bc4c00 }
.limit { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note, .value { fill: #9198a1 }
  .ours { fill: #4493f8 }
  .theirs { fill: #4b535d }
  .missed { fill: #db6d28 }
  .limit { stroke: #e6edf3 }
}
"""


@dataclass(frozen=True)
class Strip:
    """One bar: its name, its length, and what stands at its end."""

    name: str
    value: float
    text: str
    kind: str = "theirs"


@dataclass(frozen=True)
class Group:
    """Bars that belong together, each as a share of the longest."""

    name: str
    strips: Sequence[Strip]


def groups(path: Path, title: str, note: str, drawn: Sequence[Group]) -> None:
    """Draw groups of bars, each group on a scale of its own."""
    height = TOP + sum(ROW * (len(group.strips) + 1) + GAP for group in drawn)
    parts = _head(height, title, note)
    y = TOP
    for group in drawn:
        parts.append(f'<text x="16" y="{y + 4}">{escape(group.name)}</text>')
        y += ROW
        longest = max((strip.value for strip in group.strips), default=1.0) or 1.0
        for strip in group.strips:
            length = max(strip.value / longest * (WIDTH - LEFT - RIGHT), 1.5)
            parts += _strip(y, strip, length)
            y += ROW
        y += GAP
    _write(path, parts)


def limits(path: Path, title: str, note: str, drawn: Sequence[Strip]) -> None:
    """Draw one bar per line, with 1.0 as the limit that it should stay below, on a log scale."""
    least, most = 0.01, 10.0
    room = WIDTH - LEFT - RIGHT

    def place(value: float) -> float:
        share = math.log(min(max(value, least), most) / least) / math.log(most / least)
        return max(share * room, 1.5)

    height = TOP + ROW * len(drawn) + 2 * GAP
    parts = _head(height, title, note)
    for at, strip in enumerate(drawn):
        parts += _strip(TOP + at * ROW, strip, place(strip.value))
    x = LEFT + place(1.0)
    parts.append(
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 14}" '
        f'y2="{TOP + ROW * len(drawn)}"/>'
    )
    _write(path, parts)


def _strip(y: float, strip: Strip, length: float) -> list[str]:
    return [
        f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(strip.name)}</text>',
        f'<rect class="{strip.kind}" x="{LEFT}" y="{y - 7}" width="{length:.1f}" height="13" '
        'rx="2"/>',
        f'<text class="value" x="{LEFT + length + 6:.1f}" y="{y + 4}">{escape(strip.text)}</text>',
    ]


def _head(height: float, title: str, note: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="16" y="20">{escape(title)}</text>',
        f'<text class="note" x="16" y="37">{escape(note)}</text>',
    ]


def _write(path: Path, parts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>\n"]))
