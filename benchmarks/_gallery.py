"""Which pictures there are, and what they show of the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _picture import Group, Strip, groups, limits
from _report import duration

OURS = frozenset({"tiercache", "poolkit", "safe codec", "plain hit", "our pool"})
PAGES = {
    "l1": (("l1_hit",), "A hit in memory", ("sync, two arguments", "async, two arguments")),
    "l1-forms": (("l1_forms",), "A hit in memory, by the form of the call", None),
    "l1-fill": (("l1_fill", "l1_memory"), "Miss and fill; memory per entry", None),
    "l2": (("l2_redis",), "Redis", None),
    "l3": (("l3_postgres", "l3_sqlite"), "PostgreSQL and SQLite", None),
    "codec": (("codec",), "The codec", None),
    "pool": (("pool_fetchval", "pool_transaction"), "The pool", None),
    "app": (("app_load",), "A FastAPI service at saturation", None),
}
LONGEST = 36
"""Letters of a name that there is room for."""
NOTE = "median time, the shorter the better"

Documents = Mapping[str, Mapping[str, Any]]


def draw(documents: Documents, folder: Path) -> list[Path]:
    """Draw what has been measured; return the files."""
    drawn: list[Path] = []
    for name, (benchmarks, title, only) in PAGES.items():
        found = [
            Group(scenario, [_strip(sample, document) for sample in samples])
            for benchmark in benchmarks
            if (document := documents.get(benchmark)) is not None
            for scenario, samples in document["results"].items()
            if only is None or scenario in only
        ]
        if found:
            groups(folder / f"{name}.svg", title, NOTE, found)
            drawn.append(folder / f"{name}.svg")
    judged = [
        _against(name.partition("_")[0], bar)
        for name, document in documents.items()
        for bar in document.get("bars", ())
        if bar["limit"] and bar["measured"]
    ]
    if judged:
        note = "measured as a share of what is asked; left of the line is met; log scale"
        limits(folder / "bars.svg", "What is asked, and what was measured", note, judged)
        drawn.append(folder / "bars.svg")
    return drawn


def _strip(sample: Mapping[str, Any], document: Mapping[str, Any]) -> Strip:
    value = sample["median"]
    text = f"{value:.0f}" if document["unit"] == "bytes per entry" else duration(value)
    ours = sample["name"] == document["base"] or sample["name"] in OURS
    return Strip(sample["name"], value, text, "ours" if ours else "theirs")


def _against(part: str, bar: Mapping[str, Any]) -> Strip:
    share = bar["measured"] / bar["limit"]
    if bar["at_least"]:
        share = 1 / share
    work = f"{part}: {bar['work'].removeprefix('application, ')}"
    work = work if len(work) <= LONGEST else f"{work[: LONGEST - 1]}…"
    kind = "ours" if bar["met"] else "missed"
    return Strip(
        work, share, f"{bar['measured']:.3g} ({bar['asked'].split(' ')[0]} {bar['limit']:g})", kind
    )
