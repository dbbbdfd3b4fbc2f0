"""A process with a cache and a crowd of callers on one key, which does what a test tells it."""

import asyncio
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from tests.scenarios.companion import Companion, obey, started, until
from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier, lease


def crowd(url: str, *, ttl: float = 5.0) -> AbstractContextManager[Companion]:
    """Start a process whose cache is on this tier and whose leases are so short, and end it."""
    return started(__file__, url, str(ttl), killed=True)


class Program:
    """What the process can do. Its loader waits until it is let go, and returns its own pid."""

    def __init__(self, url: str) -> None:
        # Patient with a busy machine: a bus that is lost for a moment lets others load.
        kind = RedisTier if url.startswith("redis") else DatabaseTier
        self.cache = Cache(MemoryTier(), kind(url, timeout=10.0), name="crowd")
        self.gate = threading.Event()
        self.fails = False
        self.before = self.cache.stats()
        self.answers: Future[list[Any]] = Future()
        self.threads = ThreadPoolExecutor(1)

    def listens(self) -> bool:
        """Wait until the bus is connected."""
        return until(lambda: self.cache._parts.background.bus_connected)

    def call(self, key: str, how: str, count: int, fails: bool = False) -> None:
        """Have so many callers ask for the key at once, in tasks or in threads."""
        self.gate.clear()
        self.fails = fails
        self.before = self.cache.stats()
        work = self._tasks if how == "tasks" else self._threads
        self.answers = self.threads.submit(work, key, count)

    def _tasks(self, key: str, count: int) -> list[Any]:
        async def load() -> int:
            return await asyncio.to_thread(self._load)

        async def call() -> list[Any]:
            calls = (
                self.cache.get_or_load(key, load, ttl=60, tags=[f"tag of {key}"])
                for _ in range(count)
            )
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(call())

    def _threads(self, key: str, count: int) -> list[Any]:
        together = threading.Barrier(count)
        tags = [f"tag of {key}"]

        def call(_: int) -> Any:
            together.wait()
            try:
                return self.cache.sync.get_or_load(key, self._load, ttl=60, tags=tags)
            except ValueError as error:
                return error

        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(call, range(count)))

    def _load(self) -> int:
        assert self.gate.wait(30)
        if self.fails:
            raise ValueError("down")
        return os.getpid()

    def go(self) -> None:
        """Let the loader go on."""
        self.gate.set()

    def loads(self, count: int) -> bool:
        """Wait until the loader has been called so often for the key."""
        return until(lambda: self.stats()[0] >= count)

    def coalesces(self, count: int) -> bool:
        """Wait until so many callers of the key wait for the loads of others."""
        return until(lambda: self.stats()[1] >= count)

    def settles(self, count: int) -> bool:
        """Wait until so many callers of the key load or wait for the loads of others."""
        return until(lambda: sum(self.stats()) >= count)

    def looks(self, count: int) -> bool:
        """Wait until the shared tier has been asked in vain so often."""
        return until(lambda: self.cache._parts.guarded[0].counters.misses >= count)

    def stats(self) -> tuple[int, int]:
        """Return how often the loader was called, and how many waited for the loads of others."""
        now, before = self.cache.stats(), self.before
        return now.loads - before.loads, now.coalesced - before.coalesced

    def results(self) -> list[Any]:
        """Return what the callers got; an error as its text."""
        found = self.answers.result(30)
        return [str(each) if isinstance(each, Exception) else each for each in found]

    def get(self, key: str) -> Any:
        """Read a key."""
        return self.cache.sync.get(key)

    def invalidate(self, key: str, how: str) -> bool:
        """Invalidate the key, its tag, or everything."""
        if how == "clear":
            return self.cache.sync.clear()
        if how == "tag":
            return self.cache.sync.invalidate(tags=[f"tag of {key}"])
        return self.cache.sync.invalidate(key)


def main(url: str, ttl: str) -> None:
    """Do what is asked, one line at a time."""
    lease.LEASE_TTL = float(ttl)
    program = Program(url)
    with program.cache, program.threads:
        obey(program)


if __name__ == "__main__":
    main(*sys.argv[1:])
