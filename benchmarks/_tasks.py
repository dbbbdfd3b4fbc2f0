"""Rounds of one call: by one task in a row, or by many tasks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns

from _measure import AsyncTimed


def one_task(call: Callable[[], Awaitable[object]], calls: int) -> AsyncTimed:
    """Return a round of ``calls`` calls, one after the other."""

    async def timed() -> int:
        began = perf_counter_ns()
        for _ in range(calls):
            await call()
        return perf_counter_ns() - began

    return timed


def crowd(call: Callable[[], Awaitable[object]], calls: int, tasks: int) -> AsyncTimed:
    """Return a round of ``calls`` calls, shared out evenly among ``tasks`` tasks."""

    async def work(number: int) -> None:
        for _ in range(number):
            await call()

    async def timed() -> int:
        began = perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for at in range(tasks):
                group.create_task(work(calls // tasks + (at < calls % tasks)))
        return perf_counter_ns() - began

    return timed
