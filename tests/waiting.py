"""Waiting for what takes place by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE = 20.0


async def until(
    condition: Callable[[], object | Awaitable[object]], limit: float = PATIENCE
) -> None:
    """Come back when the condition holds, which may be async; `TimeoutError` after the limit."""
    async with asyncio.timeout(limit):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.002)
