"""Connections that do not come back: where they were taken, and where their task is stuck now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from poolkit._session import Slot

_OWN = "poolkit"


def origin(depth: int = 8) -> tuple[tuple[str, int, str], ...]:
    """Return where the program is now: (file, line, function), innermost first, without us."""
    frame = sys._getframe(1)
    places: list[tuple[str, int, str]] = []
    while frame is not None and len(places) < depth:
        module = frame.f_globals.get("__name__", "")
        if module != _OWN and not module.startswith(f"{_OWN}."):
            code = frame.f_code
            places.append((code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(places)


def describe(slot: Slot[Any], now: float) -> str:
    """Return one line on who has the connection, and for how long."""
    task = slot.holder
    who = f"task {task.get_name()!r}" if task is not None else "nobody's task"
    return f"{who} for {now - slot.since:.3g} s"


def report(slot: Slot[Any], now: float) -> str:
    """Return what a reader of the log needs to find the leak."""
    text = [f"a connection is out with {describe(slot, now)}"]
    if slot.origin:
        text.append("acquired at " + _place(slot.origin[0]))
    stuck = _stuck(slot.holder)
    if stuck is not None:
        text.append("its task is now at " + _place(stuck))
    return "; ".join(text)


def _stuck(task: asyncio.Task[Any] | None) -> tuple[str, int, str] | None:
    if task is None or task.done():
        return None
    stack = task.get_stack(limit=None)
    if not stack:
        return None
    frame = stack[-1]
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


def _place(place: tuple[str, int, str]) -> str:
    file, line, function = place
    return f"{file}:{line} in {function}"
