"""A second process with a cache of its own, which does what a test tells it."""

import asyncio
import itertools
import os
import sys
from contextlib import AbstractContextManager
from typing import Any

from tests.scenarios.companion import Companion, obey, started, until
from tiercache import Cache, MemoryTier


def peer(url: str, *, hash_seed: int = 0) -> AbstractContextManager[Companion]:
    """Start a process whose cache is on this server or in this file, and end it."""
    return started(__file__, url, PYTHONHASHSEED=str(hash_seed))


_calls = itertools.count(1)


async def user(user_id: int, options: frozenset[str] = frozenset("abc")) -> int:
    """Return how often it has been called."""
    return next(_calls)


class Program:
    """What the other process can do."""

    def __init__(self, url: str) -> None:
        self.cache = cache = Cache(MemoryTier(), url, name="peers")
        self.heard: list[dict[str, Any]] = []
        self.settled: set[int] = set()
        self.user = cache.cached(ttl=60, tags=["user:{user_id}"])(user)

    def get(self, key: str) -> Any:
        """Read by key."""
        return self.cache.sync.get(key)

    def set(self, key: str, value: Any, *tags: str) -> None:
        """Store a value."""
        self.cache.sync.set(key, value, tags=tags)

    def load(self, user_id: int) -> Any:
        """Call the cached function."""
        return asyncio.run(self.user(user_id))  # type: ignore[arg-type]

    def key(self, user_id: int) -> str:
        """Return the derived key of such a call."""
        return str(self.user.key(user_id))

    def invalidate(self, keys: list[str], tags: list[str]) -> bool:
        """Invalidate."""
        return self.cache.sync.invalidate(*keys, tags=tags)

    def clear(self) -> bool:
        """Clear."""
        return self.cache.sync.clear()

    def rule(self, event: str, keys: list[str], tags: list[str]) -> None:
        """Add a rule of this process alone."""
        self.cache.on(event, keys=keys, tags=tags)

    def subscribe(self, event: str) -> None:
        """Note what is heard."""
        self.cache.subscribe(event, lambda **payload: self.heard.append(payload))

    def emit(self, event: str, payload: dict[str, Any]) -> bool:
        """Emit."""
        return self.cache.sync.emit(event, **payload)

    def settle(self, number: int) -> bool:
        """Tell the others a number, after all that was told before."""
        return self.cache.sync.emit("settled", number=number)

    def has_settled(self, number: int) -> bool:
        """Wait until that number was heard: what was told before it has been carried out."""
        return until(lambda: number in self.settled)

    def listens(self) -> bool:
        """Wait until the bus is connected."""
        self.cache.subscribe("settled", lambda number: self.settled.add(number))
        return until(lambda: self.cache._parts.background.bus_connected)

    def hears(self, count: int) -> Any:
        """Wait until so many events have been heard."""
        until(lambda: len(self.heard) >= count)
        return self.heard

    def holds(self, key: str) -> bool:
        """Say whether L1 has the key, now."""
        return self.cache._parts.local.lookup(key, None) is not None

    def loses(self, key: str) -> bool:
        """Wait until L1 has the key no more; False if that does not happen."""
        return until(lambda: not self.holds(key))

    def forks(self) -> bool:
        """Fork: the child works and ends, and this process' bus is not disturbed by it."""
        gaps = self.cache._figures.tally.invalidations["gap"]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self.cache.sync.set("from the child", os.getpid())
                assert self.cache.sync.get("from the child") == os.getpid()
                assert until(lambda: self.cache._parts.background.bus_connected)
                self.cache.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert self.cache.sync.get("from the child") == child
        assert self.cache._parts.background.bus_connected
        return self.cache._figures.tally.invalidations["gap"] == gaps


def main(url: str) -> None:
    """Do what is asked, one line at a time."""
    program = Program(url)
    with program.cache:
        obey(program)


if __name__ == "__main__":
    main(sys.argv[1])
