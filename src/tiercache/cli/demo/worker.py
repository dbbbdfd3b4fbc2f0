"""Another process of the service: ``python -m tiercache.cli.demo.worker``.

It reads JSON lines from standard input, first where the data is, then questions, and writes JSON
lines to standard output: its figures twice a second, and one answer for each question. It ends with
its input, so none is left when the process that began it dies.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from time import perf_counter
from typing import Any, Final

from tiercache.cache import Cache
from tiercache.cli.demo.service import Shop
from tiercache.cli.demo.settings import ENTRIES, WORKER_READERS
from tiercache.cli.demo.site import Site
from tiercache.cli.demo.traffic import Traffic
from tiercache.cli.demo.truth import Tally
from tiercache.defaults import configure

_REPORT_EVERY: Final = 0.5
_DELIVERY: Final = 3.0
"""Seconds for which L1 may lag behind a commit of another process (``bus_timeout``)."""
_LOOK_EVERY: Final = 0.002
_BATCH: Final = 16
_BATCH_WITHOUT_L1: Final = 3


class Worker:
    """Reads like everybody else, and answers questions about what it sees."""

    def __init__(self, cache: Cache, shop: Shop, seed: int, *, hears: bool) -> None:
        self._cache = cache
        self._shop = shop
        self._patience = _DELIVERY if hears else 0.0
        self._traffic = Traffic(shop, seed=seed, batch=_BATCH if hears else _BATCH_WITHOUT_L1)
        self._checked = Tally()

    async def run(self, questions: AsyncIterator[dict[str, Any]]) -> None:
        """Work until there are no more questions."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._traffic.run(readers=WORKER_READERS, threads=0, writers=0))
            reports = group.create_task(self._report())
            async for question in questions:
                answer = await self._answer(question)
                _say({"number": question["number"], "answer": answer})
            self._traffic.stop()
            reports.cancel()

    async def _report(self) -> None:
        while True:
            _say({"figures": self._figures()})
            await asyncio.sleep(_REPORT_EVERY)

    def _figures(self) -> dict[str, Any]:
        stats, tally = self._cache.stats(), self._traffic.tally
        tally.add(self._checked)
        return {
            "hits": dict(stats.hits),
            "stale": stats.stale,
            "misses": stats.misses,
            "loads": stats.loads,
            "coalesced": stats.coalesced,
            "reads": tally.reads,
            "stale_reads": tally.stale,
            "uncommitted_reads": tally.uncommitted,
        }

    async def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        match question["ask"]:
            case "user":
                return await self._see(question["user"], question["version"])
            case "users":
                return await self._compare(question["versions"])
            case "crowd":
                return await self._crowd(question["user"], question["callers"])
            case "stop":
                self._traffic.stop()
                return self._figures()
            case unknown:
                raise ValueError(f"there is no question {unknown!r}")

    async def _see(self, user_id: int, version: int) -> dict[str, Any]:
        """Read until the version is there, no longer than it may take; say how often."""
        began, reads = perf_counter(), 0
        while True:
            user, reads = await self._shop.get_user(user_id), reads + 1
            waited = perf_counter() - began
            if user.version >= version or waited >= self._patience:
                return {"name": user.name, "version": user.version, "reads": reads}
            await asyncio.sleep(_LOOK_EVERY)

    async def _compare(self, versions: Mapping[str, int]) -> dict[str, Any]:
        """Read users who were renamed elsewhere; count those that stay old for too long."""
        for user_id, version in versions.items():
            seen = await self._see(int(user_id), version)
            self._checked.reads += seen["reads"]
            self._checked.stale += seen["version"] < version
        return self._figures()

    async def _crowd(self, user_id: int, callers: int) -> dict[str, Any]:
        """Ask for one user that many times at once; say how often the database was asked."""
        before = self._shop.loaded[user_id]
        await asyncio.gather(*(self._shop.get_user(user_id) for _ in range(callers)))
        return {"loads": self._shop.loaded[user_id] - before}


def _say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def _lines() -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def _main() -> None:
    lines = _lines()
    first = await anext(lines)
    site = Site(**first["site"])
    pool = site.pool()
    # Only Redis tells other processes what to drop from their L1; without it this one has none.
    hears = site.redis is not None
    cache = site.cache(pool, entries=ENTRIES if hears else None)
    async with pool, configure(cache):
        shop = Shop(pool, site.schema)
        _say({"number": first["number"], "answer": {}})
        await Worker(cache, shop, first["seed"], hears=hears).run(lines)


if __name__ == "__main__":
    asyncio.run(_main())
