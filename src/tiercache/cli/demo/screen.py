"""What people see while it runs: a live table in a terminal, a line a second elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tiercache.cli.demo.figures import Figures
from tiercache.cli.demo.report import percent, tier_table
from tiercache.cli.demo.settings import Settings

_WIDTH: Final = 36


class Screen(Protocol):
    """Shows figures as they come."""

    every: float
    """Seconds between two of them."""

    def say(self, what: str) -> None:
        """Tell what is being done before there are figures."""
        ...

    def show(self, figures: Figures) -> None:
        """Show the figures of this moment."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def screen_for(settings: Settings, *, silent: bool) -> Screen:
    """Return what suits standard output."""
    if silent:
        return SilentScreen()
    return LiveScreen(settings) if sys.stdout.isatty() else PlainScreen(settings)


class SilentScreen:
    """Shows nothing."""

    every = 1.0

    def say(self, what: str) -> None:
        """Say nothing."""

    def show(self, figures: Figures) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing."""


class PlainScreen(SilentScreen):
    """Prints a line a second."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.seconds

    def say(self, what: str) -> None:
        """Print it."""
        print(f"{what} ...", flush=True)

    def show(self, figures: Figures) -> None:
        """Print the shares of the tiers, and what was compared."""
        shares = (
            f"{level.upper()} {percent(figures.hits[level], figures.requests)}"
            for level in figures.tiers
        )
        print(
            f"{figures.elapsed:5.1f} / {self._seconds:g} s  {figures.requests:>9,} reads  "
            f"{'  '.join(shares)}  loaded {percent(figures.loads, figures.requests)}  "
            f"commits {figures.committed}  rollbacks {figures.rolled_back}  "
            f"stale reads {figures.checked.stale}",
            flush=True,
        )


class LiveScreen(SilentScreen):
    """Redraws a table in place; the report takes its place at the end."""

    every = 0.25

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def say(self, what: str) -> None:
        """Print it, dimmed."""
        self._console.print(f"{what} ...", style="dim")

    def show(self, figures: Figures) -> None:
        """Redraw."""
        self._live.update(self._picture(figures), refresh=True)

    def _picture(self, figures: Figures) -> Group:
        seconds = self._settings.seconds
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text("tiercache demo", style="bold"),
            ProgressBar(total=seconds, completed=min(figures.elapsed, seconds), width=_WIDTH),
            f"{figures.elapsed:.1f} / {seconds:g} s",
            Text(f"{figures.requests / max(figures.elapsed, 0.1):,.0f} reads/s", style="dim"),
        )
        facts = Table.grid(padding=(0, 3))
        for _ in range(4):
            facts.add_column()
        checked = figures.checked
        wrong = checked.stale + checked.uncommitted
        facts.add_row(
            f"[green]{figures.committed:,}[/] committed",
            f"[yellow]{figures.rolled_back:,}[/] rolled back",
            f"[cyan]{figures.saved:,}[/] loads saved",
            f"[cyan]{sum(figures.spans.values()):,}[/] spans",
        )
        facts.add_row(
            f"{checked.reads:,} compared",
            f"[{'red' if wrong else 'green'}]{wrong:,}[/] stale or uncommitted",
            f"{figures.evictions:,} evictions from L1",
            f"{figures.processes} process{'' if figures.processes == 1 else 'es'}",
        )
        return Group("", head, "", tier_table(figures, self._console.width), "", facts, "")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)
