"""Show samples as a table, and keep them as JSON with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _measure import Sample

WIDTH = 140
"""Columns that a table gets where nobody says how many there are."""

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
                line.append(f"{found[name].median:.0f} ns")
            else:
                ratio = found[name].ratio_to(found[base])
                line.append(f"{found[name].median:.0f} ns  {ratio:.2f}x")
        table.append(line)
    return ["scenario", *names], table


def show(title: str, results: Results, base: str) -> None:
    """Print the table, with rich where it is installed."""
    head, lines = rows(results, base)
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


def save(
    path: Path, benchmark: str, results: Results, base: str, settings: Mapping[str, object]
) -> None:
    """Write everything that was measured, and on what."""
    document = {
        "benchmark": benchmark,
        "machine": {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
        },
        "versions": {name: _version(name) for name in ("tiercache", "cachebox", "cachetools")},
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
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _named(name: str, samples: Sequence[Sample]) -> Sample:
    return next(sample for sample in samples if sample.name == name)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
