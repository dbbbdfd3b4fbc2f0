"""The figures at the end, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tiercache.cli.demo.figures import Figures
from tiercache.cli.demo.proofs import Commit, Recovery, Rollback, Stampede
from tiercache.cli.demo.settings import (
    SKEW,
    THREADS,
    USERS,
    WORKER_READERS,
    WRITERS,
    Settings,
)

_BAR: Final = 18
_WIDE: Final = 100
"""Columns from which on there is room for bars, and for two things side by side."""
_PLAIN_WIDTH: Final = 110
_LEVELS: Final = ("l1", "l2", "l3")
_METRICS: Final = (
    "tiercache.requests",
    "tiercache.coalesced_requests",
    "tiercache.invalidations",
    "tiercache.load.duration",
    "tiercache.bus.lag",
    "poolkit.transaction.duration",
    "db.client.connection.use_time",
)


def as_json(figures: Figures) -> str:
    """Return the figures as one JSON object."""
    return json.dumps(figures.as_dict(), indent=2)


def percent(part: float, whole: float) -> str:
    """Return a share with one decimal."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def duration(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def tier_table(figures: Figures, width: int) -> Table:
    """Show who answered, how often, and how fast, in a terminal of this width."""
    wide = width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("answered by", no_wrap=True)
    table.add_column("")  # the only one that gives way where the terminal is narrow
    table.add_column("reads", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    if wide:
        table.add_column("", width=_BAR)
    table.add_column("p50", justify="right", no_wrap=True, min_width=8)
    table.add_column("p99", justify="right", no_wrap=True, min_width=8)
    for source, label, what, count, color in _sources(figures):
        latency = figures.latencies.get(source)
        bar = ProgressBar(
            total=max(figures.requests, 1),
            completed=count,
            width=_BAR,
            style="grey23",
            complete_style=color,
            finished_style=color,
        )
        table.add_row(
            f"[{color}]{label}[/]",
            Text(what, style="dim", no_wrap=True, overflow="ellipsis"),
            f"{count:,}",
            percent(count, figures.requests),
            *([bar] if wide else []),
            duration(latency.p50) if latency else "-",
            duration(latency.p99) if latency else "-",
        )
    return table


def _sources(figures: Figures) -> Iterator[tuple[str, str, str, int, str]]:
    for level, color in zip(_LEVELS, ("green", "cyan", "blue"), strict=True):
        if level in figures.tiers:
            yield level, level.upper(), figures.tiers[level], figures.hits[level], color
    yield "joined", "single flight", "joined a load under way", figures.saved, "magenta"
    yield "loaded", "the database", "a miss: query, fill the tiers", figures.loads, "yellow"


def report(settings: Settings, figures: Figures) -> None:
    """Print it all."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    print_ = console.print
    print_()
    print_(
        "[bold]tiercache demo[/]" + ("  [yellow](interrupted)[/]" if figures.interrupted else "")
    )
    print_(
        f"{figures.elapsed:.1f} s, {figures.requests:,} reads of {USERS:,} users and their orders "
        f"(Zipf {SKEW}, seed {settings.seed}) in {_counted(figures.processes, 'process')}: "
        f"{settings.readers} tasks, {THREADS} threads and {WRITERS} writers in this one"
        + (f", {WORKER_READERS} tasks in each other." if figures.processes > 1 else "."),
        style="dim",
    )
    print_()
    print_(tier_table(figures, console.width))
    query = ""
    if (latency := figures.latencies.get("query")) is not None:
        query = f" (the query alone: p50 {duration(latency.p50)}, p99 {duration(latency.p99)})"
    print_(
        f"[bold]{percent(figures.requests - figures.misses, figures.requests)}[/] hits. "
        f"Single flight saved [bold]{figures.saved:,}[/] of {figures.misses:,} loads{query}. "
        f"{figures.invalidations:,} invalidations, {figures.evictions:,} evictions from L1."
    )
    print_(
        "Reads are counted in all processes; times are this one's, as its readers saw them under "
        "this load: of L1 by the clock around the call, of the others by their spans.",
        style="dim",
    )
    print_()
    print_(_proof_table(figures))
    print_()
    print_(_telemetry(figures, console.width))
    print_()


def _proof_table(figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    proofs, checked = figures.proofs, figures.checked
    if proofs.stampede is not None:
        table.add_row(_verdict(proofs.stampede.holds), "stampede", _of_stampede(proofs.stampede))
    if proofs.commit is not None:
        table.add_row(_verdict(proofs.commit.holds), "commit", _of_commit(proofs.commit))
    if proofs.rollback is not None:
        table.add_row(_verdict(proofs.rollback.holds), "rollback", _of_rollback(proofs.rollback))
    if proofs.recovery is not None:
        table.add_row(_verdict(proofs.recovery.holds), "recovery", _of_recovery(proofs.recovery))
    table.add_row(
        _verdict(not checked.stale and not checked.uncommitted),
        "under load",
        f"{figures.committed:,} transactions committed, {figures.rolled_back:,} rolled back; "
        f"{checked.reads:,} reads were compared with what had been committed when they began: "
        f"{checked.stale:,} stale, {checked.uncommitted:,} uncommitted",
    )
    return table


def _verdict(holds: bool) -> str:
    return "[green]✓[/]" if holds else "[red]✗[/]"


def _of_stampede(seen: Stampede) -> str:
    return (
        f"{seen.callers:,} callers in {_counted(seen.processes, 'process')} asked for one cold "
        f"user at once: {_counted(seen.loads, 'load')}, {seen.saved:,} saved"
    )


def _of_commit(seen: Commit) -> str:
    text = f"user {seen.user} renamed '{seen.before}' to '{seen.after}': next read '{seen.seen}'"
    if not seen.seen_by_workers:
        return text
    others = ", ".join(
        f"'{name}'" if reads == 1 else f"'{name}' (read {reads})"
        for name, reads in zip(seen.seen_by_workers, seen.reads_by_workers, strict=True)
    )
    return f"{text}, in the other processes {others}"


def _of_rollback(seen: Rollback) -> str:
    return (
        f"'{seen.kept}' to '{seen.attempted}', then rolled back: next read '{seen.seen}' from the "
        f"cache, {_counted(seen.loads, 'load')}, {_counted(seen.invalidations, 'invalidation')}"
    )


def _of_recovery(seen: Recovery) -> str:
    return (
        f"Redis lost {seen.lost} users: a cache that had none of them in memory found "
        f"{seen.found_in_l3} in L3"
    )


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 'es' if thing.endswith('s') else 's'}"


def _telemetry(figures: Figures, width: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 4, 0, 0))
    spans = _tree(f"[bold]{sum(figures.spans.values()):,} spans[/] recorded", figures.spans)
    chosen = {
        name: value
        for name, value in figures.metrics.items()
        if name.split("{")[0] in _METRICS and value
    }
    metrics = _tree(f"[bold]{len(figures.metrics):,} metric series[/], of which", chosen)
    left: Tree | Table = spans
    if figures.proofs.commit is not None:
        left = _nested(spans, figures.proofs.commit)
    if width >= _WIDE:
        table.add_row(left, metrics)
    else:
        for part in (left, "", metrics):
            table.add_row(part)
    return table


def _tree(title: str, counts: Mapping[str, float]) -> Tree:
    tree = Tree(title, guide_style="dim")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        tree.add(f"{escape(name)} [cyan]{count:,.0f}[/]")
    return tree


def _nested(spans: Tree, commit: Commit) -> Table:
    """Put the spans of the rename under the counts."""
    root = Tree("[bold]one trace[/]: the rename above", guide_style="dim")
    branches = {-1: root}
    for depth, name, seconds in commit.trace:
        parent = branches.get(depth - 1, root)
        branches[depth] = parent.add(f"{escape(name)} [cyan]{duration(seconds)}[/]")
    both = Table.grid()
    both.add_row(spans)
    both.add_row("")
    both.add_row(root)
    return both
