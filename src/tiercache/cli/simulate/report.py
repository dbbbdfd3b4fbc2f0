"""What is printed: progress while it runs, then a table and the curve, or JSON."""

from __future__ import annotations

import json as json_
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

Ratios = Mapping[str, Mapping[int, float]]
"""Hits in per cent, by policy and size."""

_BAR: Final = 32
_HEIGHT: Final = 12
_STEP: Final = 8
_MARKS: Final = "*o+x"
_EVERY: Final = 0.1


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Yield what is told of requests done: a bar on standard error, if that is a terminal.

    It needs no library: a replay must not wait for a screen.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    done, drawn, began = 0, 0.0, time.monotonic()

    def advance(requests: int) -> None:
        nonlocal done, drawn
        done += requests
        now = time.monotonic()
        if now - drawn < _EVERY and done < total:
            return
        drawn = now
        full = _BAR * done // total
        rate = done / max(now - began, 1e-9)
        print(
            f"\r{'█' * full}{'░' * (_BAR - full)} {done / total:4.0%}  {rate:,.0f} requests/s ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    try:
        yield advance
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def show(ratios: Ratios, name: str, keys: Sequence[str], *, json: bool) -> None:
    """Print the result."""
    if json:
        print(
            json_.dumps(
                {
                    policy: {str(size): round(ratio, 4) for size, ratio in by_size.items()}
                    for policy, by_size in ratios.items()
                }
            )
        )
        return
    print(f"{name}: {len(keys):,} requests for {len(set(keys)):,} keys; hits in per cent")
    print()
    for line in [*table(ratios), "", *curve(ratios)]:
        print(line)


def table(ratios: Ratios) -> list[str]:
    """Return the table: a row for each policy, a column for each size."""
    sizes = list(next(iter(ratios.values())))
    width = max(len(policy) for policy in [*ratios, "size"])
    lines = [f"{'size':<{width}}" + "".join(f"{size:>12,}" for size in sizes)]
    for policy, by_size in ratios.items():
        lines.append(f"{policy:<{width}}" + "".join(f"{by_size[size]:>12.2f}" for size in sizes))
    return lines


def curve(ratios: Ratios) -> list[str]:
    """Return the curve: hits over the sizes, from the smallest on, a mark for each policy.

    Where two policies meet, the first of them is seen.
    """
    sizes = sorted(next(iter(ratios.values())))
    columns = _STEP * len(sizes)
    top = max(max(by_size.values()) for by_size in ratios.values()) or 1.0
    canvas = [[" "] * columns for _ in range(_HEIGHT + 1)]
    for mark, by_size in reversed([*zip(_MARKS, ratios.values(), strict=False)]):
        heights = [by_size[size] / top * _HEIGHT for size in sizes]
        for at, height in enumerate(heights):
            column = _STEP * at + _STEP // 2
            if at:
                for step in range(1, _STEP):
                    between = heights[at - 1] + (height - heights[at - 1]) * step / _STEP
                    canvas[_HEIGHT - round(between)][column - _STEP + step] = "·"
        for at, height in enumerate(heights):
            canvas[_HEIGHT - round(height)][_STEP * at + _STEP // 2] = mark
    lines = []
    for row, cells in enumerate(canvas):
        label = f"{top * (_HEIGHT - row) / _HEIGHT:6.1f}" if row % 4 == 0 else " " * 6
        lines.append(f"{label} ┤{''.join(cells).rstrip()}")
    lines.append(" " * 7 + "└" + "─" * columns)
    lines.append(" " * 8 + "".join(f"{_short(size):^{_STEP}}" for size in sizes).rstrip())
    lines.append("")
    lines.append(
        "  ".join(f"{mark} {policy}" for mark, policy in zip(_MARKS, ratios, strict=False))
    )
    return lines


def _short(size: int) -> str:
    for unit, power in (("M", 10**6), ("k", 10**3)):
        if size >= power:
            return f"{size / power:.3g}{unit}"
    return str(size)
