"""Show samples as a table, and keep them as JSON with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _bars import Bar
from _measure import Sample

WIDTH = 140
"""Columns that a table gets where nobody says how many there are."""

LIBRARIES = (
    "tiercache",
    "aiocache",
    "aiosqlite",
    "asyncpg",
    "cachebox",
    "cachetools",
    "cashews",
    "diskcache",
    "fastapi",
    "opentelemetry-sdk",
    "psycopg",
    "psycopg-pool",
    "redis",
    "sqlalchemy",
    "theine",
    "uvicorn",
)

Results = Mapping[str, Sequence[Sample]]
"""The samples of each scenario."""


def rows(results: Results, base: str) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table: the base's time, and the others as ratios to it."""
    names = list(dict.fromkeys(sample.name for samples in results.values() for sample in samples))
    names.sort(key=lambda name: name != base)
    table: list[list[str]] = []
    for scenario, samples in results.items():
        found = {sample.name: sample for sample in samples}
        line = [scenario]
        for name in names:
            if name not in found:
                line.append("-")
            elif name == base:
                line.append(duration(found[name].median))
            else:
                ratio = found[name].ratio_to(found[base])
                line.append(f"{duration(found[name].median)}  {ratio:.2f}x")
        table.append(line)
    return ["scenario", *names], table


def duration(nanoseconds: float) -> str:
    """Return a time with a unit that suits it."""
    if nanoseconds < 1_000:
        return f"{nanoseconds:.0f} ns"
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1_000:.3g} µs"
    return f"{nanoseconds / 1_000_000:.3g} ms"


def show(title: str, results: Results, base: str) -> None:
    """Print the samples as a table; one scenario of many contenders as a list of them."""
    head, lines = rows(results, base)
    if len(lines) == 1:
        (name, *cells), head = lines[0], head[1:]
        print_table(f"{title}: {name}", ["", "median"], list(zip(head, cells, strict=True)))
    else:
        print_table(title, head, lines)


def print_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table, with rich where it is installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(title)
        widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
        for line in [head, *lines]:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        return
    table = Table(title=title)
    for at, name in enumerate(head):
        table.add_column(name, justify="right" if at else "left", no_wrap=at > 0)
    for line in lines:
        table.add_row(*line)
    Console(width=max(Console().width, WIDTH)).print(table)


def show_bars(bars: Sequence[Bar]) -> None:
    """Print what is asked beside what was measured."""
    lines = [
        [bar.work, bar.asked, f"{bar.measured:.3g}", "met" if bar.met else "missed"] for bar in bars
    ]
    print_table("What is asked, and what was measured", ["work", "bar", "measured", ""], lines)


def save(
    path: Path,
    benchmark: str,
    results: Results,
    base: str,
    settings: Mapping[str, object],
    bars: Sequence[Bar] = (),
    **more: object,
) -> None:
    """Write everything that was measured, on what, with which libraries; and ``more``."""
    document = {
        "benchmark": benchmark,
        "machine": {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
        },
        "versions": {name: _version(name) for name in LIBRARIES},
        "settings": dict(settings),
        "unit": "ns per call",
        "base": base,
        "results": {
            scenario: [
                asdict(sample)
                | {"median": sample.median, "ratio": sample.ratio_to(_named(base, samples))}
                for sample in samples
            ]
            for scenario, samples in results.items()
        },
        "bars": [asdict(bar) | {"met": bar.met} for bar in bars],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _named(name: str, samples: Sequence[Sample]) -> Sample:
    return next(sample for sample in samples if sample.name == name)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
